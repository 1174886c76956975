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
from cluster_layer.blocking import BlockingLinks, finish
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links
from cluster_layer.running import Redirected
from cluster_layer.topologies import Topologies
from tests.cluster_layer.links.bench import SETTINGS
from tests.support.layers import HasUrl
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology.hashing import SLOTS
from topology.ids import new_cluster_id
from topology.model import Shard, SlotTable, Topology
from topology.planning import initial_topology


class Cluster:
    """Two shards, one topology of them, and direct access."""

    def __init__(self, *servers: HasUrl) -> None:
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


def _push(keys: Keys) -> tuple[Sequence[bytes], Command]:
    return (keys.queue("c"),), (10, 60_000, "m")


async def test_who_has_missed_an_epoch_does_not_bring_the_last_one_to_a_blank_shard(
    cluster: Cluster,
) -> None:
    """Another one is asked first: it gets the newest topology, and no write by an old one."""
    behind, ahead = cluster.links(), cluster.links(cluster.later())
    for link in behind.all():
        await link.ready()
    await ahead.to("s1").ready()
    cluster.clients[0].flushall()
    with pytest.raises(Redirected):
        await behind.to("s0").run(scripts.QUEUE_PUSH, cluster.topology.epoch, _push)
    assert cluster.served(0, behind.to("s0")) == cluster.later().epoch
    assert behind.topologies.topology == cluster.later()
    assert not cluster.clients[0].exists(behind.to("s0").keys.queue("c"))
    await behind.close()
    await ahead.close()


def test_so_it_is_with_calls_that_block(cluster: Cluster) -> None:
    """Of a thread without a loop."""
    behind = BlockingLinks(Topologies(cluster.topology), SETTINGS, Counters(), {})
    ahead = BlockingLinks(Topologies(cluster.later()), SETTINGS, Counters(), {})
    for shard in ("s0", "s1"):
        finish(behind.to(shard).ready())
    finish(ahead.to("s1").ready())
    cluster.clients[0].flushall()
    link = behind.to("s0")
    with pytest.raises(Redirected):
        finish(link.run(scripts.QUEUE_PUSH, cluster.topology.epoch, _push))
    assert int(cluster.clients[0].get(link.keys.cluster.epoch)) == cluster.later().epoch
    behind.close()
    ahead.close()


@pytest.mark.parametrize("fault", ["silent", "cut"])
async def test_a_blank_shard_comes_up_when_the_others_can_t_be_asked(
    redis_server: RedisServer, fault: str
) -> None:
    """Nobody waits longer than a moment for what they would say."""
    with RedisServer() as other, TcpProxy("127.0.0.1", other.port) as proxy:
        cluster = Cluster(redis_server, proxy)
        links = cluster.links()
        for link in links.all():
            await link.ready()
        if fault == "silent":
            proxy.blackhole()
        else:
            proxy.refuse()
            proxy.cut()
        cluster.clients[0].flushall()
        began = asyncio.get_running_loop().time()
        reply = await links.to("s0").run(scripts.QUEUE_PUSH, cluster.topology.epoch, _push)
        assert reply == [1, 0, 0]
        assert asyncio.get_running_loop().time() - began < SETTINGS.timeout_s
        assert cluster.served(0, links.to("s0")) == cluster.topology.epoch
        await links.close()


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
