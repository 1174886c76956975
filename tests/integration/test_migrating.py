"""A live site moves from channels_redis to this layer: no message lost, none twice, no pause."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ConfigError
from cluster_layer.migrating import TwoLayers
from tests.support.layers import numbered, shared_config
from tests.support.workers import Worker

OLD = "channels_redis.core.RedisChannelLayer"
BOTH = "cluster_layer.migrating.TwoLayers"
NEW = "cluster_layer.ClusterChannelLayer"


def stages(old: RedisServer, shards: list[RedisServer]) -> list[tuple[str, dict[str, Any]]]:
    """BACKEND and CONFIG of each stage of docs/migrating.md."""
    before = {"hosts": [old.url]}
    after = shared_config(shards)
    return [
        (OLD, before),
        (BOTH, {"old": before, "new": after, "write": "old"}),
        (BOTH, {"old": before, "new": after, "write": "new"}),
        (NEW, after),
    ]


class Process:
    """One server process of the site, with a consumer that is in the room."""

    def __init__(self, backend: str, config: Mapping[str, Any]) -> None:
        self.worker = Worker(dict(config), backend=backend)
        self.channel = ""

    async def start(self) -> None:
        await self.worker.__aenter__()
        self.channel = await self.worker.call("join", "room")

    async def stop(self) -> None:
        await self.worker.call("layer", "group_discard", "room", self.channel)
        await self.worker.__aexit__(None, None, None)

    async def numbers(self, count: int) -> list[int]:
        return [(await self.worker.call("receive", self.channel))["n"] for _ in range(count)]


async def everybody_reaches_everybody(site: list[Process], first: int) -> int:
    """Each process writes to the room and to each consumer: all arrive, each once."""
    number = first
    expected: list[set[int]] = [set() for _ in site]
    for sender in site:
        await sender.worker.call("layer", "group_send", "room", numbered(number))
        for numbers in expected:
            numbers.add(number)
        number += 1
        for receiver, numbers in zip(site, expected, strict=True):
            await sender.worker.call("layer", "send", receiver.channel, numbered(number))
            numbers.add(number)
            number += 1
    for process, numbers in zip(site, expected, strict=True):
        arrived = await process.numbers(len(numbers))
        assert sorted(arrived) == sorted(numbers)
    return number


@pytest.mark.slow
async def test_a_rolling_restart_through_all_stages_loses_nothing(
    redis_server: RedisServer, shards: list[RedisServer]
) -> None:
    """Three processes, restarted one by one for each stage; after each restart all is well."""
    steps = stages(redis_server, shards)
    site = [Process(*steps[0]) for _ in range(3)]
    await asyncio.gather(*(process.start() for process in site))
    number = await everybody_reaches_everybody(site, 0)
    for stage in steps[1:]:
        for place in range(len(site)):
            fresh = Process(*stage)
            await fresh.start()  # before the other one goes: there is no pause
            await site[place].stop()
            site[place] = fresh
            number = await everybody_reaches_everybody(site, number)
    print(f"{number} messages through 9 restarts")
    for process in site:
        await process.stop()


async def test_what_is_on_its_way_is_not_lost_in_the_switch(
    redis_server: RedisServer, shards: list[RedisServer]
) -> None:
    """Sent by either layer while nobody receives; a cancel loses nothing of the new layer's.

    The old layer may drop what it has just popped when it is cancelled: nothing is due there then.
    """
    _, (_, read_both), (_, write_new), _ = stages(redis_server, shards)
    receiver, sender = TwoLayers(**write_new), TwoLayers(**read_both)
    try:
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        for number in range(40):
            writer = (receiver, sender)[number % 2]
            await writer.send(channel, numbered(number))
        async with asyncio.timeout(60):
            seen = [(await receiver.receive(channel))["n"] for _ in range(40)]
        assert sorted(seen) == list(range(40))
        for number in range(20):
            await receiver.send(channel, numbered(number))
        seen = []
        async with asyncio.timeout(60):
            while len(seen) < 20:
                receiving = asyncio.ensure_future(receiver.receive(channel))
                if len(seen) % 3 == 0:
                    await asyncio.sleep(0)
                    receiving.cancel()
                outcomes = await asyncio.gather(receiving, return_exceptions=True)
                seen += [outcome["n"] for outcome in outcomes if isinstance(outcome, dict)]
                if receiving.cancelled():
                    seen.append((await receiver.receive(channel))["n"])
        assert seen == list(range(20))
        await receiver.group_discard("room", channel)
        for number, writer in enumerate((receiver, sender)):
            await writer.group_send("room", numbered(-2))
            await writer.send(channel, numbered(number))
        last = [(await receiver.receive(channel))["n"] for _ in range(2)]
        assert sorted(last) == [0, 1]
    finally:
        await receiver.close()
        await sender.close()


async def test_an_outage_of_the_old_redis_ends_no_receive(
    redis_server: RedisServer, shards: list[RedisServer]
) -> None:
    """Messages of the new layer arrive while the old one fails."""
    *_, (_, write_new), _ = stages(redis_server, shards)
    both = TwoLayers(**write_new)
    try:
        channel = await both.new_channel()
        redis_server.kill()
        receiving = asyncio.ensure_future(both.receive(channel))
        await asyncio.sleep(0)
        await both.send(channel, numbered(1))
        async with asyncio.timeout(20):
            assert await receiving == numbered(1)
    finally:
        await both.close()


def test_a_wrong_stage_is_told() -> None:
    """Which layer is written to has two answers."""
    with pytest.raises(ConfigError, match=r"CONFIG write: 'both' .* 'old' or 'new'"):
        TwoLayers({}, {}, write="both")
