"""Links when the topology changes: it spreads by the shards, writers are redirected."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.exceptions

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links
from cluster_layer.running import Redirected
from cluster_layer.topologies import Topologies
from tests.cluster_layer.links.bench import SETTINGS
from tests.support.waiting import eventually_async
from topology.hashing import SLOTS
from topology.ids import new_cluster_id
from topology.model import Shard, SlotTable, Topology
from topology.planning import initial_topology


class Cluster:
    """Two shards, one topology of them, and direct access."""

    def __init__(self, *servers: RedisServer) -> None:
        shards = [Shard(f"s{number}", server.url) for number, server in enumerate(servers)]
        self.topology = initial_topology(shards, cluster=new_cluster_id())
        self.clients: list[Any] = [redis.Redis.from_url(server.url) for server in servers]

    def later(self, epochs: int = 1, **fields: Any) -> Topology:
        return replace(self.topology, epoch=self.topology.epoch + epochs, **fields)

    def links(self, topology: Topology | None = None) -> Links:
        return Links(Topologies(topology or self.topology), SETTINGS, Counters())

    def served(self, number: int, link: Link) -> int:
        return int(self.clients[number].get(link.keys.cluster.epoch) or 0)


@pytest.fixture
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    with RedisServer() as other:
        cluster = Cluster(redis_server, other)
        yield cluster
        for client in cluster.clients:
            client.close()


async def test_a_topology_spreads_by_the_shards(cluster: Cluster) -> None:
    """From the process that knows it to the shards, and from a shard to a process that does not.

    Before anybody uses the link, so that nobody writes by old routes.
    """
    ahead, behind = cluster.links(cluster.later()), cluster.links()
    await ahead.to("s0").ready()
    assert cluster.served(0, ahead.to("s0")) == cluster.later().epoch
    await behind.to("s0").ready()
    assert behind.topologies.topology == cluster.later()
    await behind.to("s1").ready()
    assert cluster.served(1, behind.to("s1")) == cluster.later().epoch
    await ahead.close()
    await behind.close()


async def test_a_topology_that_comes_later_is_met_with_the_heartbeat(cluster: Cluster) -> None:
    """On both sides, also if nothing is written."""
    links, others = cluster.links(), cluster.links()
    for link in (*links.all(), *others.all()):
        await link.ready()
    links.topologies.offer(cluster.later())
    await eventually_async(lambda: others.topologies.routes.epoch == cluster.later().epoch)
    await eventually_async(lambda: [cluster.served(n, links.to(f"s{n}")) for n in (0, 1)] == [2, 2])
    await links.close()
    await others.close()


async def test_a_writer_that_is_behind_is_redirected(cluster: Cluster) -> None:
    """Nothing was executed, and by then it knows the topology that the shard serves."""
    behind = cluster.links()
    link = behind.to("s0")
    await link.ready()
    ahead = Topologies(cluster.later())
    installing = Links(ahead, SETTINGS, Counters())
    await installing.to("s0").ready()

    def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("c"),), (10, 60_000, "m")

    with pytest.raises(Redirected) as caught:
        await link.run(scripts.QUEUE_PUSH, cluster.topology.epoch, build)
    assert caught.value.definite
    assert not cluster.clients[0].exists(link.keys.queue("c"))
    assert behind.topologies.topology == cluster.later()
    behind.follow()
    shard, reply = await behind.run_at_home("c", scripts.QUEUE_PUSH, build)
    assert reply == [1, 0, 0]
    assert shard == behind.routes.shard_of("c")
    await behind.close()
    await installing.close()


async def test_a_shard_that_keeps_no_usable_copy_is_unavailable(cluster: Cluster) -> None:
    """Its epoch is ahead, its topology garbage: nothing is executed, and nobody goes in circles."""
    links = cluster.links()
    link = links.to("s0")
    await link.ready()
    cluster.clients[0].mset({link.keys.cluster.epoch: 99, link.keys.cluster.topology: "garbage"})

    def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("c"),), (10, 60_000, "m")

    with pytest.raises(ShardUnavailable, match="no usable copy") as caught:
        await links.to("s0").run(scripts.QUEUE_PUSH, links.routes.epoch, build)
    assert not isinstance(caught.value, Redirected)
    await links.close()


async def test_a_shard_that_leaves_answers_what_it_was_asked(cluster: Cluster) -> None:
    """The link ends after that; who waits for it, or asks for it, is redirected."""
    links = cluster.links()
    link = links.to("s1")
    connection = await link.ready()
    asked = asyncio.ensure_future(connection.execute(("BLPOP", "k", 0.3)))
    await asyncio.sleep(0)
    only = SlotTable(("s0",) * SLOTS)
    links.topologies.offer(cluster.later(shards=cluster.topology.shards[:1], table=only))
    links.follow()
    assert await asked is None
    with pytest.raises(Redirected):
        links.to("s1")
    await eventually_async(lambda: link.ended)
    with pytest.raises(Redirected):
        await link.ready()
    await links.close()


async def test_a_shard_with_another_url_gets_another_link(cluster: Cluster) -> None:
    """Its id stays: the address alone has changed."""
    links = cluster.links()
    first = links.to("s1")
    await first.ready()
    moved = replace(cluster.topology.shards[1], url=cluster.topology.shards[1].url + "/1")
    links.topologies.offer(cluster.later(shards=(cluster.topology.shards[0], moved)))
    links.follow()
    second = links.to("s1")
    assert second is not first
    await second.ready()
    assert second.endpoint.db == 1
    await links.close()
