"""Whoever may have missed something is told: since when, why, which channels and groups."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer, Gap, GapReason
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import NotOurChannel
from tests.support.changes import changes_of
from tests.support.layers import (
    name_on,
    new_channel_on,
    numbered,
    only_end_comes,
    open_layer,
    outcome_of,
    receive,
    receive_numbers,
    shared_config,
    topology_store,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology


class Gaps:
    """What the hook was told."""

    def __init__(self) -> None:
        self.all: list[Gap] = []

    def __call__(self, gap: Gap) -> None:
        self.all.append(gap)

    async def first(self, reason: GapReason) -> Gap:
        """The first gap of this reason, which must come."""

        def of_it() -> list[Gap]:
            return [gap for gap in self.all if gap.reason is reason]

        return (await eventually_async(of_it))[0]


@pytest.fixture
def gaps() -> Gaps:
    return Gaps()


async def joined(layer: ClusterChannelLayer, *groups: str) -> str:
    channel: str = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, channel)
    return channel


async def cut_and_miss(
    proxy: TcpProxy, layer: ClusterChannelLayer, elsewhere: ClusterChannelLayer, count: int
) -> None:
    """Cut the connection of `layer`, and let another process send to a group meanwhile."""
    proxy.refuse()
    proxy.cut()
    await eventually_async(
        lambda: not any(s["connected"] for s in layer.stats()["shards"].values())
    )
    for number in range(count):
        await elsewhere.group_send("lobby", numbered(number))
    proxy.heal()


async def test_a_reconnect_tells_which_groups_missed_how_much(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """The groups, for how long, and how many messages at most; the members get a message."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        prefix = unique_prefix()
        ids: dict[str, Any] = {"prefix": prefix, "timeout": 1.0}
        cluster = [Shard("s", redis_server.url)]
        far = topology_store(initial_topology(cluster, cluster="0" * 16))
        near = topology_store(initial_topology([Shard("s", proxy.url)], cluster="0" * 16))
        async with (
            open_layer(topology=near, on_gap=gaps, gap_message="layer.gap", **ids) as layer,
            open_layer(topology=far, **ids) as elsewhere,
        ):
            channel = await joined(layer, "lobby", "kitchen")
            bystander = await layer.new_channel()
            await layer.send(bystander, numbered(7))
            assert await receive(layer, bystander) == numbered(7)
            await elsewhere.group_send("lobby", numbered(-1))
            assert await receive(layer, channel) == numbered(-1)
            await cut_and_miss(proxy, layer, elsewhere, 3)
            gap = await gaps.first(GapReason.RECONNECT)
            assert set(gap.names) == {"lobby", "kitchen"}
            assert gap.missed == 3
            assert 0 < gap.lasted_s < 30
            assert "connection to shard s was lost" in gap.why
            told = await receive(layer, channel)
            assert told["type"] == "layer.gap"
            assert told["reason"] == "reconnect"
            assert sorted(told["groups"]) == ["kitchen", "lobby"]
            assert told["missed"] == 3
            # Its inbox goes on where it was: who is in no group has missed nothing.
            await elsewhere.send(bystander, numbered(8))
            assert await receive(layer, bystander) == numbered(8)
            await elsewhere.group_send("lobby", numbered(9))
            assert await receive(layer, channel) == numbered(9)
            assert len(gaps.all) == 1


async def test_a_reconnect_that_missed_nothing_is_no_gap(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """Ten cuts in silence: nobody has missed anything, and nobody is told so."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        async with open_layer([proxy], on_gap=gaps) as layer:
            channel = await joined(layer, "lobby")
            for number in range(10):
                proxy.cut()

                async def is_sent(number: int = number) -> bool:
                    return await outcome_of(layer.group_send("lobby", numbered(number))) == "ok"

                async def is_back() -> bool:
                    return await layer.group_count("lobby") == 1

                await eventually_async(lambda: _quietly(is_back))
                await eventually_async(is_sent)
                assert (await receive(layer, channel))["n"] == number
            assert layer.stats()["shards"][proxy_id(layer)]["reconnects"] >= 10
            assert gaps.all == []


async def _quietly(condition: Callable[[], Any]) -> bool:
    try:
        return bool(await condition())
    except Exception:  # noqa: BLE001 - not yet
        return False


def proxy_id(layer: ClusterChannelLayer) -> str:
    (shard,) = layer.stats()["shards"]
    return str(shard)


@pytest.mark.parametrize("keys", [[], ["a key"]])
async def test_a_restarted_shard_is_told(
    redis_server: RedisServer, gaps: Gaps, keys: list[str]
) -> None:
    """What was unread there is gone: of groups and of direct messages. Nobody knows how much."""
    config: dict[str, Any] = {
        "on_gap": gaps,
        "gap_message": "layer.gap",
        "symmetric_encryption_keys": keys,
    }
    async with open_layer([redis_server], **config) as layer:
        member = await joined(layer, "lobby")
        direct = await layer.new_channel()
        waiting = asyncio.ensure_future(layer.receive(direct))
        await layer.group_send("lobby", numbered(0))
        assert await receive(layer, member) == numbered(0)
        redis_server.kill()
        redis_server.restart()
        gap = await gaps.first(GapReason.RESTART)
        assert set(gap.names) == {"lobby", member, direct}
        assert gap.names[0] == "lobby"
        assert gap.missed is None
        assert "another life" in gap.why
        async with asyncio.timeout(20):
            told = await waiting
        assert (told["reason"], told["groups"], told["missed"]) == ("restart", [], None)
        assert (await receive(layer, member))["groups"] == ["lobby"]


async def test_a_lost_shard_is_told(gaps: Gaps) -> None:
    """Its names have another home at once; what was on it was not read to its end."""
    with RedisServer() as stays, RedisServer() as dies:
        shards = [Shard("stays", stays.url), Shard("dies", dies.url)]
        url = topology_store(initial_topology(shards, cluster=new_cluster_id()))
        config: dict[str, Any] = {"topology": url, "on_gap": gaps, "gap_message": "layer.gap"}
        async with open_layer(**config) as layer, changes_of(url) as changes:
            lost_group = await name_on(layer, "dies", "group")
            kept_group = await name_on(layer, "stays", "group")
            member = await new_channel_on(layer, "stays")
            direct = await new_channel_on(layer, "dies")
            for group in (lost_group, kept_group):
                await layer.group_add(group, member)
            await layer.send(direct, numbered(1))
            assert await receive(layer, direct) == numbered(1)
            dies.kill()
            await changes.mark_down("dies")
            gap = await gaps.first(GapReason.CHANGE)
            assert set(gap.names) == {lost_group, direct}
            assert "lost: dies" in gap.why
            told = await receive(layer, member)
            assert (told["reason"], told["groups"]) == ("change", [lost_group])
            assert (await receive(layer, direct))["groups"] == []


async def test_a_planned_change_is_no_gap(shards: list[RedisServer], gaps: Gaps) -> None:
    """Nothing is lost, so nothing is told."""
    ids = [Shard(f"s{number}", server.url) for number, server in enumerate(shards)]
    url = topology_store(initial_topology(ids, cluster=new_cluster_id()))
    config: dict[str, Any] = {"topology": url, "prefix": unique_prefix(), "on_gap": gaps}
    async with open_layer(**config) as layer, changes_of(url) as changes:
        channel = await joined(layer, *(f"group{n}" for n in range(20)))
        for wanted in (ids[:1], ids, ids[1:]):
            await changes.to(wanted)
        for number in range(20):
            await layer.group_send(f"group{number}", numbered(number))
        assert await receive_numbers(layer, channel, 20) == list(range(20))
        assert gaps.all == []


async def test_an_overflow_is_told_once_with_a_count(shards: list[RedisServer], gaps: Gaps) -> None:
    """Fifty messages to a channel that holds three; the channel is told when it has room again."""
    config = shared_config(shards, capacity=3, on_gap=gaps, gap_message="layer.gap")
    async with open_layer(**config) as layer:
        channel = await joined(layer, "lobby")
        for number in range(50):
            await layer.group_send("lobby", numbered(number))

        def missed() -> int:
            return sum(gap.missed or 0 for gap in gaps.all)

        await eventually_async(lambda: missed() == 47)
        assert {gap.reason for gap in gaps.all} == {GapReason.OVERFLOW}
        assert {gap.names for gap in gaps.all} == {(channel,)}
        assert len(gaps.all) <= 3  # one for each second in which it happened
        assert layer.stats()["lost"] == {"full": 47}
        assert await receive_numbers(layer, channel, 3) == [0, 1, 2]
        told = await receive(layer, channel)
        assert (told["reason"], told["missed"]) == ("overflow", 47)


async def test_a_hook_that_fails_harms_nobody(
    shards: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the layer goes on."""

    def fail(gap: Gap) -> None:
        raise RuntimeError(gap.reason)

    async with open_layer(shards, capacity=1, on_gap=fail) as layer:
        channel = await joined(layer, "lobby")
        with caplog.at_level(logging.ERROR, "cluster_layer"):
            for number in range(3):
                await layer.group_send("lobby", numbered(number))
            await eventually_async(lambda: "on_gap failed" in caplog.text)
        assert await receive(layer, channel) == numbered(0)
        assert await only_end_comes(layer, channel)


# -- an explicit end


async def test_a_closed_channel_is_in_no_group_and_has_no_messages(
    shards: list[RedisServer],
) -> None:
    """Also where another process has added it; what waited is counted as abandoned."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, open_layer(**config) as other:
        groups = [f"group{n}" for n in range(6)]
        channel = await joined(layer, *groups)
        await other.group_add("group6", channel)

        async def is_member() -> bool:
            return await layer.group_channels("group6") == {channel}

        await eventually_async(is_member)
        await layer.group_send("group1", numbered(1))
        await other.send(channel, numbered(2))
        await eventually_async(lambda: _waiting(layer, channel) == 2)
        await layer.channel_close(channel)
        assert layer.stats()["lost"] == {"abandoned": 2}
        for group in (*groups, "group6"):
            assert await other.group_count(group) == 0
        await layer.channel_close(channel)  # it has ended already


def _waiting(layer: ClusterChannelLayer, channel: str) -> int:
    node = layer._hosts.node
    box = node.mailboxes.find(channel) if node else None
    return len(box.parcels) if box else 0


async def test_only_its_process_closes_a_channel(shards: list[RedisServer]) -> None:
    """A normal channel has no end, another process's is its own."""
    async with open_layer(shards) as layer:
        for channel in ("orders", f"specific.{'0' * 16}!x"):
            with pytest.raises(NotOurChannel):
                await layer.channel_close(channel)
