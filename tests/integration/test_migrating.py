"""A live site moves from channels_redis to this layer: no message lost, none twice, no pause."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import redis.asyncio

from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ConfigError
from cluster_layer.migrating import CORE, PUBSUB, TwoLayers
from tests.support.layers import numbered, shared_config
from tests.support.waiting import eventually_async
from tests.support.workers import Worker

BOTH = "cluster_layer.migrating.TwoLayers"
NEW = "cluster_layer.ClusterChannelLayer"


each_old_backend = pytest.mark.parametrize("backend", [CORE, PUBSUB], ids=["core", "pubsub"])


def stages(
    old: RedisServer, shards: list[RedisServer], backend: str = CORE
) -> list[tuple[str, dict[str, Any]]]:
    """BACKEND and CONFIG of each stage of docs/migrating.md."""
    before = {"hosts": [old.url]}
    after = shared_config(shards)
    both = {"old": before, "new": after, "old_backend": backend}
    if backend == CORE:
        del both["old_backend"]  # it needs not be said
    return [
        (backend, before),
        (BOTH, {**both, "write": "old"}),
        (BOTH, {**both, "write": "new"}),
        (NEW, after),
    ]


async def subscribed(server: RedisServer, count: int, *channels: str) -> None:
    """So many processes are subscribed to each of these: until then pub/sub loses what is sent."""
    client = redis.asyncio.Redis.from_url(server.url)
    try:
        await eventually_async(
            lambda: _has(client, count, channels), what=f"{count} subscribed to {channels}"
        )
    finally:
        await client.aclose()


async def _has(client: Any, count: int, channels: tuple[str, ...]) -> bool:
    return all(found == count for _, found in await client.pubsub_numsub(*channels))


class Process:
    """One server process of the site, with a consumer that is in the room."""

    def __init__(self, backend: str, config: Mapping[str, Any]) -> None:
        self.worker = Worker(dict(config), backend=backend)
        self.is_pubsub = PUBSUB in (backend, config.get("old_backend"))
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


async def all_heard(server: RedisServer, site: list[Process]) -> None:
    """Whoever is on pub/sub hears what is sent to it, and whoever has left it does not."""
    on_pubsub = [process for process in site if process.is_pubsub]
    await subscribed(server, len(on_pubsub), "asgi__group__room")
    await subscribed(server, 1, *(process.channel for process in on_pubsub))


@pytest.mark.slow
@each_old_backend
async def test_a_rolling_restart_through_all_stages_loses_nothing(
    redis_server: RedisServer, shards: list[RedisServer], backend: str
) -> None:
    """Three processes, restarted one by one for each stage; after each restart all is well."""
    steps = stages(redis_server, shards, backend)
    site = [Process(*steps[0]) for _ in range(3)]
    await asyncio.gather(*(process.start() for process in site))
    await all_heard(redis_server, site)
    number = await everybody_reaches_everybody(site, 0)
    for stage in steps[1:]:
        for place in range(len(site)):
            fresh = Process(*stage)
            await fresh.start()  # before the other one goes: there is no pause
            await site[place].stop()
            site[place] = fresh
            await all_heard(redis_server, site)
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


@each_old_backend
async def test_an_outage_of_the_old_redis_ends_no_receive(
    redis_server: RedisServer, shards: list[RedisServer], backend: str
) -> None:
    """Messages of the new layer arrive while the old one fails."""
    *_, (_, write_new), _ = stages(redis_server, shards, backend)
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


async def test_a_channel_of_pubsub_goes_on_after_a_cancel_and_a_flush(
    redis_server: RedisServer, shards: list[RedisServer]
) -> None:
    """Its old layer ends the subscription, and the next receive begins it anew."""
    _, (_, read_both), (_, write_new), _ = stages(redis_server, shards, PUBSUB)
    receiver, old, new = TwoLayers(**read_both), TwoLayers(**read_both), TwoLayers(**write_new)
    try:
        channel = await receiver.new_channel()
        for number, writer in enumerate((old, new)):
            await subscribed(redis_server, 1, channel)
            await writer.send(channel, numbered(number))
            async with asyncio.timeout(20):
                assert await receiver.receive(channel) == numbered(number)
        receiving = asyncio.ensure_future(receiver.receive(channel))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        await subscribed(redis_server, 0, channel)
        receiving = asyncio.ensure_future(receiver.receive(channel))
        await subscribed(redis_server, 1, channel)
        await receiver.flush()
        await subscribed(redis_server, 1, channel)
        await old.send(channel, numbered(3))
        async with asyncio.timeout(20):
            assert await receiving == numbered(3)
    finally:
        for layer in (receiver, old, new):
            await layer.close()


async def test_a_normal_channel_of_pubsub_is_heard_by_all_until_the_switch(
    redis_server: RedisServer, shards: list[RedisServer]
) -> None:
    """The old layer has no queues; from the switch on one reader gets each message."""
    _, (_, read_both), (_, write_new), _ = stages(redis_server, shards, PUBSUB)
    readers = [TwoLayers(**read_both), TwoLayers(**read_both)]
    old, new = TwoLayers(**read_both), TwoLayers(**write_new)
    try:
        receiving = [asyncio.ensure_future(reader.receive("jobs")) for reader in readers]
        await subscribed(redis_server, 2, "jobs")
        await old.send("jobs", numbered(1))
        async with asyncio.timeout(20):
            assert await asyncio.gather(*receiving) == [numbered(1)] * 2
        receiving = [asyncio.ensure_future(reader.receive("jobs")) for reader in readers]
        await new.send("jobs", numbered(2))
        await new.send("jobs", numbered(3))
        async with asyncio.timeout(20):
            got = await asyncio.gather(*receiving)
        assert sorted(message["n"] for message in got) == [2, 3]
    finally:
        for layer in (*readers, old, new):
            await layer.close()


@pytest.mark.parametrize(
    "backend", ["channels.layers.InMemoryChannelLayer", "no.such", "json.dumps"]
)
def test_an_old_layer_of_another_kind_is_refused(backend: str) -> None:
    """The answer names the setting, the value and what is allowed."""
    with pytest.raises(ConfigError, match=rf"CONFIG old_backend: '{backend}' .*pubsub"):
        TwoLayers({}, {}, "old", backend)


def test_a_wrong_stage_is_told() -> None:
    """Which layer is written to has two answers."""
    with pytest.raises(ConfigError, match=r"CONFIG write: 'both' .* 'old' or 'new'"):
        TwoLayers({}, {}, write="both")
