"""Who is in a group: exactly those whom a message would reach that is sent now."""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import AnswersMissing, InvalidName, ShardUnavailable
from tests.support.changes import changes_of
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    open_layer,
    receive,
    shared_config,
    topology_file,
)
from tests.support.waiting import eventually_async
from tests.support.workers import Worker, workers
from topology.model import Shard

GROUPS = ("lobby", "kitchen", "cellar")


@dataclass(eq=False)
class Look:
    """A question under way: what has held all the time, and what can have held at a time."""

    group: str
    certain: set[str]
    possible: set[str]


class Memberships:
    """What is known of memberships from when joins and leaves were begun and acknowledged."""

    def __init__(self) -> None:
        self.certain: dict[str, set[str]] = {group: set() for group in GROUPS}
        self.possible: dict[str, set[str]] = {group: set() for group in GROUPS}
        self._looks: list[Look] = []

    async def join(self, worker: Worker, group: str, channel: str) -> None:
        self.possible[group].add(channel)
        for look in self._looks:
            if look.group == group:
                look.possible.add(channel)
        await worker.call("layer", "group_add", group, channel)
        self.certain[group].add(channel)

    async def leave(self, worker: Worker, group: str, channel: str) -> None:
        self.certain[group].discard(channel)
        for look in self._looks:
            if look.group == group:
                look.certain.discard(channel)
        await worker.call("layer", "group_discard", group, channel)
        self.possible[group].discard(channel)

    async def churn(
        self, others: Sequence[Worker], rounds: int, chance: random.Random, own: float = 0.7
    ) -> None:
        """One channel of the first worker joins and leaves; else than by its `own` by another."""
        channel = await others[0].call("layer", "new_channel")
        for number in range(rounds):
            group = GROUPS[number % len(GROUPS)]
            await self.join(others[0] if chance.random() < own else others[1], group, channel)
            if chance.random() < 0.7:
                await self.leave(others[0] if chance.random() < own else others[1], group, channel)

    async def look(self, layer: ClusterChannelLayer, group: str) -> None:
        """Ask, and compare with what held all the time, and with what can have held at a time."""
        look = Look(group, set(self.certain[group]), set(self.possible[group]))
        self._looks.append(look)
        found = await layer.group_channels(group)
        self._looks.remove(look)
        missed, invented = look.certain - found, found - look.possible
        assert not missed, (group, missed)
        assert not invented, (group, invented)

    async def are_seen(self, layer: ClusterChannelLayer) -> None:
        """When nothing changes, every answer is exact."""
        for group in GROUPS:
            assert self.certain[group] == self.possible[group]
            assert await layer.group_channels(group) == self.certain[group]
            assert await layer.group_count(group) == len(self.certain[group])
            assert await layer.group_exists(group) == bool(self.certain[group])


async def test_the_count_is_right_under_joins_and_leaves_of_four_processes(
    shards: list[RedisServer],
) -> None:
    """On three shards: each answer fits what was acknowledged, and at rest it is exact."""
    config = shared_config(shards)
    chance = random.Random(7)
    memberships = Memberships()
    looks = 0
    async with open_layer(**config) as layer, workers(4, config) as others:
        turned = [[*others[n:], *others[:n]] for n in range(4)]
        churning = asyncio.gather(
            *(memberships.churn(turned[n % 4], 25, chance) for n in range(24))
        )
        while not churning.done():
            await asyncio.gather(*(memberships.look(layer, group) for group in GROUPS))
            looks += len(GROUPS)
        await churning
        await memberships.are_seen(layer)
        assert await others[3].call("names", "group_channels", "lobby") == sorted(
            memberships.certain["lobby"]
        )
        left = sum(map(len, memberships.certain.values()))
        print(f"{looks} looks while 24 channels joined and left; {left} memberships at the end")
    assert looks > 20
    assert left > 0


@pytest.fixture
def moving(shards: list[RedisServer], tmp_path: Path) -> tuple[str, dict[str, Shard]]:
    """A store with the first two of three shards."""
    known = {f"s{n}": server for n, server in enumerate(shards)}
    url = topology_file(tmp_path / "topology.json", {k: known[k] for k in ("s0", "s1")})
    return url, {shard: Shard(shard, server.url) for shard, server in known.items()}


async def test_the_answer_is_right_while_the_topology_changes(
    moving: tuple[str, dict[str, Shard]],
) -> None:
    """A shard comes and one goes, in many rounds, while members join, leave and are counted.

    Most of them do so by another process, and have left before their own has taken them over.
    """
    url, known = moving
    config = {"topology": url, **{k: v for k, v in shared_config([]).items() if k != "hosts"}}
    chance = random.Random(11)
    memberships = Memberships()
    async with (
        open_layer(**config) as layer,
        workers(3, config) as others,
        changes_of(url) as changes,
    ):
        homes = {group: await layer.locate(group) for group in GROUPS}

        async def change() -> None:
            await changes.to(known.values(), step=512)
            await changes.to([known["s1"], known["s2"]], step=512)
            await changes.to([known["s2"]], step=512)

        changing = asyncio.ensure_future(change())
        while not changing.done():
            turned = [[*others[n:], *others[:n]] for n in range(3)]
            churning = asyncio.gather(
                *(memberships.churn(turned[n], 6, chance, own=0.4) for n in range(3)),
                *(memberships.look(layer, group) for group in GROUPS for _ in range(5)),
            )
            await churning
        await changing
        assert {await layer.locate(group) for group in GROUPS} == {"s2"}
        assert set(homes.values()) <= {"s0", "s1"}
        await memberships.are_seen(layer)


async def test_members_of_every_kind_are_counted_once(shards: list[RedisServer]) -> None:
    """Own channels, channels that another process added, normal channels; added twice or thrice."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, open_layer(**config) as other:
        for group in await names_on_all_shards(layer, "group"):
            assert not await layer.group_exists(group)
            own, theirs = await layer.new_channel(), await other.new_channel()
            nobody_reads = f"specific.{'0' * 16}!x"
            for channel in (own, theirs, nobody_reads, "orders"):
                await layer.group_add(group, channel)
                await other.group_add(group, channel)
            expected = {own, theirs, nobody_reads, "orders"}
            assert await layer.group_channels(group) == expected
            assert await other.group_count(group) == 4
            for channel in (own, theirs):
                await other.group_discard(group, channel)
            assert await layer.group_channels(group) == {nobody_reads, "orders"}
            for channel in expected:
                await layer.group_discard(group, channel)
            assert await layer.group_count(group) == 0
            assert not await other.group_exists(group)


async def test_a_process_that_was_killed_is_not_waited_for(shards: list[RedisServer]) -> None:
    """Its members are gone with it."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as other:
        own = await layer.new_channel()
        await layer.group_add("lobby", own)
        await other.call("join", "lobby")
        assert await layer.group_count("lobby") == 2
        other.kill()

        async def is_gone() -> bool:
            return await layer.group_channels("lobby") == {own}

        await eventually_async(is_gone)


async def test_an_answer_that_is_missing_is_told(shards: list[RedisServer]) -> None:
    """A process that is stopped: the count is an error with its deadline, not a wrong number."""
    config = shared_config(shards, timeout=1.0)
    async with open_layer(**config) as layer, Worker(config) as other:
        own = await layer.new_channel()
        await layer.group_add("lobby", own)
        await other.call("join", "lobby")
        assert other._process is not None
        os.kill(other._process.pid, signal.SIGSTOP)
        try:
            began = asyncio.get_running_loop().time()
            with pytest.raises(AnswersMissing, match="1 of 2 processes") as missing:
                await layer.group_channels("lobby", timeout=0.5)
            assert asyncio.get_running_loop().time() - began < 5
            assert missing.value.known == {own}
            assert missing.value.definite
            with pytest.raises(AnswersMissing):
                await layer.group_count("lobby", timeout=0.5)
            assert await layer.group_exists("lobby", timeout=0.5)
        finally:
            os.kill(other._process.pid, signal.SIGCONT)

        async def answers() -> bool:
            try:
                return await layer.group_count("lobby") == 2
            except AnswersMissing:
                return False

        await eventually_async(answers)


async def test_a_shard_that_is_down_is_told(redis_server: RedisServer) -> None:
    """The members are not known, which is not the same as none."""
    async with open_layer([redis_server], timeout=0.5) as layer:
        await layer.group_add("lobby", await layer.new_channel())
        assert await layer.group_count("lobby") == 1
        redis_server.kill()
        with pytest.raises(ShardUnavailable):
            await layer.group_count("lobby")


async def test_a_name_that_is_none_is_told(shards: list[RedisServer]) -> None:
    """As for every other call."""
    async with open_layer(shards) as layer:
        with pytest.raises(InvalidName, match="group name"):
            await layer.group_count("the lobby")


async def test_questions_leave_nothing_behind(redis_server: RedisServer) -> None:
    """No key and no loss: a hundred questions, answered or not needed any more."""
    async with open_layer([redis_server]) as layer:
        channel = await layer.new_channel()
        await layer.group_add("lobby", channel)
        await layer.group_send("lobby", numbered(0))
        client: Any = redis.Redis.from_url(redis_server.url)
        before = client.dbsize()
        for _ in range(100):
            assert await layer.group_count("lobby") == 1
        assert client.dbsize() == before
        client.close()
        assert layer.stats()["lost"] == {}
        assert await receive(layer, channel) == numbered(0)
