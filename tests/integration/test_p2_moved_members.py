"""P2 for members that others have added, wherever their group's slot has been meanwhile.

They are stored on the group's shard, which nobody tells of a leave once the slot is elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.administration import open_cluster
from cluster_layer.embedded import RedisServer, start_shards
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ShardUnavailable
from tests.support.changes import Changes, changes_of
from tests.support.layers import (
    DEADLINE_S,
    name_on,
    numbered,
    open_layer,
    receive,
    topology_store,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology import transitions
from topology.ids import new_cluster_id
from topology.model import Shard, ShardState, Topology
from topology.planning import initial_topology, plan

HERE, THERE = "here", "there"


class Site:
    """Two shards, `there` behind a proxy, and groups that have normal channels as members."""

    def __init__(self, servers: list[RedisServer], proxy: TcpProxy) -> None:
        self.servers = dict(zip((HERE, THERE), servers, strict=True))
        self.proxy = proxy
        self.here, self.there = Shard(HERE, servers[0].url), Shard(THERE, servers[1].url)
        topology = initial_topology([self.here, self.there], cluster=new_cluster_id())
        self.config: dict[str, Any] = {
            "topology": topology_store(topology),
            "topology_cache": None,
            "prefix": unique_prefix(),
        }


@pytest.fixture
def site() -> Iterator[Site]:
    with start_shards(2) as servers, TcpProxy("127.0.0.1", servers[1].port) as proxy:
        yield Site(servers, proxy)


@pytest.fixture
async def layer(site: Site) -> AsyncIterator[ClusterChannelLayer]:
    async with open_layer(**site.config) as layer:
        yield layer


@pytest.fixture
async def changes(site: Site) -> AsyncIterator[Changes]:
    async with changes_of(site.config["topology"]) as changes:
        yield changes


async def at_epoch(layer: ClusterChannelLayer, epoch: int) -> None:
    await eventually_async(lambda: layer.stats()["epoch"] >= epoch)


async def in_the_end(send: Callable[[], Awaitable[None]]) -> None:
    """Send once, as soon as it can be: the loop may not go by the newest topology yet."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await send()
                return
            except ShardUnavailable:  # nothing was sent
                await asyncio.sleep(0.02)


async def reaches(layer: ClusterChannelLayer, group: str, channel: str) -> bool:
    """Whether a message to the group comes to a normal channel."""
    await in_the_end(lambda: layer.group_send(group, numbered(1)))
    await in_the_end(lambda: layer.send(channel, numbered(2)))
    if await receive(layer, channel) == numbered(2):
        return False
    assert await receive(layer, channel) == numbered(2)
    return True


async def test_who_has_left_elsewhere_is_no_member_where_the_group_comes_back(
    site: Site, layer: ClusterChannelLayer, changes: Changes
) -> None:
    """A slot moves away, a member leaves there, that shard is lost, and the slot is at home again.

    The first home has kept what was stored; so has one to which a round was aborted.
    """
    group = await name_on(layer, HERE, "group")
    for channel in ("stays", "leaves"):
        await layer.group_add(group, channel)
    after = await changes.to([replace(site.here, state=ShardState.DRAINING), site.there])
    await at_epoch(layer, after.epoch)
    assert await layer.locate(group) == THERE
    assert await reaches(layer, group, "leaves")
    await layer.group_discard(group, "leaves")
    assert not await reaches(layer, group, "leaves")
    site.servers[THERE].kill()
    after = await changes.mark_down(THERE)
    await at_epoch(layer, after.epoch)
    assert await layer.locate(group) == HERE
    assert not await reaches(layer, group, "leaves")
    await layer.group_add(group, "leaves")
    assert await reaches(layer, group, "leaves")


@asynccontextmanager
async def copying(site: Site, prepared: Topology) -> AsyncIterator[asyncio.Task[int]]:
    """A copy that has looked at the old home, and does not reach the home to come yet."""

    def through_proxy(shard: Shard) -> Endpoint:
        return Endpoint.from_url(site.proxy.url if shard.id == THERE else shard.url)

    async with open_cluster(prepared, endpoint_for=through_proxy, timeout_s=DEADLINE_S) as cluster:
        site.proxy.blackhole()
        copy = asyncio.create_task(cluster.copy_members(prepared))
        try:
            await eventually_async(lambda: site.proxy.connections_open)
            yield copy
        finally:
            site.proxy.heal()
            await asyncio.wait([copy])


@pytest.mark.parametrize("group_expiry", [86_400, 1])
async def test_who_leaves_while_he_is_copied_does_not_come_back(
    site: Site, changes: Changes, group_expiry: int
) -> None:
    """He was read at the old home, leaves at both, and then the copy comes to the new one.

    However long that takes, and whatever `group_expiry` says of tombstones.
    """
    async with (
        open_layer(**site.config) as layer,
        open_layer(**site.config, group_expiry=group_expiry) as other,
    ):
        group = await name_on(layer, HERE, "group")
        for channel in ("stays", "leaves"):
            await layer.group_add(group, channel)
        wanted = [replace(site.here, state=ShardState.DRAINING), site.there]
        before = await changes.decisions.read()
        begun = await changes.decisions.begin(plan(before, wanted, "a test"), step=4096)
        prepared = await changes.decisions.transit(begun, transitions.prepare)
        async with open_cluster(prepared) as cluster:
            assert await cluster.install(prepared, [HERE, THERE]) == {}
        async with copying(site, prepared) as copy:
            assert await other.locate(group) == HERE
            await at_epoch(other, prepared.epoch)
            await other.group_discard(group, "leaves")
            await asyncio.sleep(1.2 if group_expiry == 1 else 0)  # as long as a tombstone lasts
            assert not copy.done()
        assert copy.result() == 1
        after = await changes.drive()
        await at_epoch(layer, after.epoch)
        assert await layer.locate(group) == THERE
        assert await reaches(layer, group, "stays")
        assert not await reaches(layer, group, "leaves")


async def test_a_member_of_an_aborted_round_is_none_when_its_home_is_lost(
    site: Site, layer: ClusterChannelLayer, changes: Changes
) -> None:
    """The home to come had got a copy; the member left at the one that stayed."""
    group = await name_on(layer, THERE, "group")
    await layer.group_add(group, "leaves")
    before = await changes.decisions.read()
    wanted = [site.here, replace(site.there, state=ShardState.DRAINING)]
    begun = await changes.decisions.begin(plan(before, wanted, "a test"), step=4096)
    prepared = await changes.decisions.transit(begun, transitions.prepare)
    async with open_cluster(prepared) as cluster:
        assert await cluster.install(prepared, [HERE, THERE]) == {}
        assert await cluster.copy_members(prepared) == 1
        aborted = await changes.decisions.abort()
        assert await cluster.install(aborted, [HERE, THERE]) == {}
    await at_epoch(layer, aborted.epoch)
    await layer.group_discard(group, "leaves")
    site.servers[THERE].kill()
    after = await changes.mark_down(THERE)
    await at_epoch(layer, after.epoch)
    assert not await reaches(layer, group, "leaves")
