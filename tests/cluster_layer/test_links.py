"""Links to real shards: what they send again, what never, and how they follow a shard's lives."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.exceptions
from redis.credentials import CredentialProvider

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import endpoints_of
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links
from cluster_layer.running import LinkSettings, Redirected
from cluster_layer.scripts import Script
from cluster_layer.topologies import Topologies, fixed_topologies
from tests.support.parts import EPOCH, link_to
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology.hashing import SLOTS
from topology.ids import new_cluster_id
from topology.model import Shard, SlotTable, Topology
from topology.planning import initial_topology

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
HURRIED = LinkSettings(prefix="test", timeout_s=0.5, connect_timeout_s=0.5)


class Bench:
    """Links on the running loop, closed at the end, and direct access to their shards."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._links: list[Link] = []

    def link(self, url: str, settings: LinkSettings = SETTINGS) -> Link:
        link = link_to(url, settings, self.counters)
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            await link.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


# Counts its executions, and keeps the fence as all of ours do.
_TEXT = """
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then
    return redis.error_reply('LATE')
end
return redis.call('INCR', KEYS[2])
"""


class Counting:
    """A script, loaded on a shard, and how often it has been executed there."""

    def __init__(self, server: RedisServer) -> None:
        self.shard_url = server.url
        self.shard: Any = redis.Redis.from_url(server.url, protocol=2)
        self.script = Script(_TEXT, self.shard.script_load(_TEXT))

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("counter"),), ()

    def executions(self) -> int:
        return sum(int(self.shard.get(key)) for key in self.shard.scan_iter("*:q:counter"))

    def calls(self, command: str) -> int:
        """How often the shard has executed this command, whoever asked."""
        return int(self.shard.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.fixture
def counting(redis_server: RedisServer) -> Iterator[Counting]:
    counting = Counting(redis_server)
    yield counting
    counting.shard.close()


async def test_calls_wait_for_the_first_connection(bench: Bench, redis_server: RedisServer) -> None:
    """A call that comes before the link is up is served by it."""
    connection = await bench.link(redis_server.url).ready()
    assert await connection.execute(("PING",)) == b"PONG"


async def test_a_script_runs_on_the_keys_of_this_life(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """Keys are made for the incarnation to which the call goes."""
    link = bench.link(redis_server.url)
    assert await link.run(counting.script, EPOCH, counting.build) == 1
    assert link.connection is not None
    key = f"test:{link.connection.incarnation}:q:counter"
    assert counting.shard.keys("test:*") == [key.encode()]


async def test_a_forgotten_script_is_loaded_again(bench: Bench, redis_server: RedisServer) -> None:
    """NOSCRIPT means not executed: after the remedy the call is made once more."""
    link = bench.link(redis_server.url)
    connection = await link.ready()

    def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("c"),), (10, 60_000, "m")

    assert await link.run(scripts.QUEUE_PUSH, EPOCH, build) == [1, 0, 0]
    await connection.execute(("SCRIPT", "FLUSH"))
    assert await link.run(scripts.QUEUE_PUSH, EPOCH, build) == [1, 0, 0]
    assert await connection.execute(("LLEN", link.keys.queue("c"))) == 2


async def test_an_error_of_a_script_is_told_and_not_repeated(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """A refusal without a remedy reaches the caller, and the link goes on."""
    link = bench.link(redis_server.url)
    await link.ready()
    counting.shard.lpush(link.keys.queue("counter"), "no number")
    with pytest.raises(ShardUnavailable, match="WRONGTYPE"):
        await link.run(counting.script, EPOCH, counting.build)
    counting.shard.flushall()
    assert await link.run(counting.script, EPOCH, counting.build) == 1


async def test_a_wrong_idea_of_the_shard_s_clock_is_corrected(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """Refused by the fence by our own error: the clock is looked at, and it is tried again."""
    link = bench.link(redis_server.url)
    connection = await link.ready()
    connection._clock_offset_ms -= 3_600_000
    assert await link.run(counting.script, EPOCH, counting.build) == 1


async def test_a_lost_reply_is_never_sent_again(
    bench: Bench, redis_server: RedisServer, proxy: TcpProxy, counting: Counting
) -> None:
    """It was executed once, its outcome is unknown to the caller, and the link comes back."""
    link = bench.link(proxy.url)
    await link.ready()
    proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(DeliveryUnknown):
        await link.run(counting.script, EPOCH, counting.build)
    assert counting.executions() == 1
    assert await link.run(counting.script, EPOCH, counting.build) == 2


async def test_an_unknown_outcome_is_final_when_it_is_told(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """What a paused shard had not executed when the caller was told, it never executes."""
    link = bench.link(redis_server.url, HURRIED)
    await link.ready()
    redis_server.pause()
    with pytest.raises(DeliveryUnknown):
        await link.run(counting.script, EPOCH, counting.build)
    redis_server.resume()
    await eventually_async(lambda: link.connection is not None)
    assert counting.executions() == 0
    assert await link.run(counting.script, EPOCH, counting.build) == 1


async def test_an_answer_from_another_server_settles_nothing(
    bench: Bench, redis_server: RedisServer, proxy: TcpProxy, counting: Counting
) -> None:
    """The address has moved; the one that had it stands still and may execute what it was sent."""
    link = bench.link(proxy.url, HURRIED)
    await link.ready()
    redis_server.pause()
    sent = proxy.bytes_to_server
    call = asyncio.ensure_future(link.run(counting.script, EPOCH, counting.build))
    await eventually_async(lambda: proxy.bytes_to_server > sent, what="it is written")
    with RedisServer() as other:
        proxy.retarget("127.0.0.1", other.port)
        await eventually_async(lambda: link.connection is not None, what="it is connected there")
        with pytest.raises(DeliveryUnknown):
            await call
        redis_server.resume()
    executions = {counting.executions() for _ in range(100)}
    assert executions == {0}


async def test_a_cut_costs_a_delay_and_no_error(
    bench: Bench, redis_server: RedisServer, proxy: TcpProxy, counting: Counting
) -> None:
    """Calls that come while the link reconnects wait for it; the reconnect is counted."""
    link = bench.link(proxy.url)
    await link.ready()
    changes: list[bool] = []
    link.watchers.append(lambda: changes.append(link.connection is not None))
    proxy.cut()
    await eventually_async(lambda: changes == [False] or len(changes) > 1)
    assert await link.run(counting.script, EPOCH, counting.build) == 1
    assert changes == [False, True]
    assert bench.counters.shards["shard"].reconnects == 1


async def test_a_shard_that_fell_silent_is_told_before_the_next_attempt_has_failed(
    bench: Bench, proxy: TcpProxy
) -> None:
    """Whoever decides about it should not wait twice; a cut says nothing."""
    link = bench.link(proxy.url, replace(SETTINGS, timeout_s=0.5))
    await link.ready()
    proxy.blackhole()
    told = await eventually_async(lambda: link.trouble)
    assert (told, link._refusal) == ("no answer within 0.5 s", None)
    proxy.cut()
    proxy.heal()
    await eventually_async(lambda: link.connection is not None and link.trouble is None)
    connection = await link.ready()
    connection.close("cut")
    assert link.trouble is None


async def test_a_dead_shard_is_unavailable_at_once(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """Definite, without the deadline's wait, until it is back; then the next call is served."""
    link = bench.link(redis_server.url)
    await link.ready()
    redis_server.kill()
    await eventually_async(lambda: link._refusal is not None)
    before = asyncio.get_running_loop().time()
    for _ in range(20):
        with pytest.raises(ShardUnavailable) as caught:
            await link.run(counting.script, EPOCH, counting.build)
        assert caught.value.definite
    assert asyncio.get_running_loop().time() - before < SETTINGS.timeout_s / 2
    redis_server.start()
    await eventually_async(lambda: link.connection is not None)
    await link.ready()


async def test_whoever_tries_again_at_once_does_not_keep_it_down(
    bench: Bench, redis_server: RedisServer
) -> None:
    """A program without a pause between its calls leaves the loop its turn to connect."""
    link = bench.link(redis_server.url)
    await link.ready()
    redis_server.kill()
    await eventually_async(lambda: link._refusal is not None)
    redis_server.start()
    attempts = 0
    while link.connection is None:
        attempts += 1
        assert attempts < 10_000_000
        with suppress(ShardUnavailable):
            await link.ready()


async def test_a_restarted_shard_has_new_keys(bench: Bench, redis_server: RedisServer) -> None:
    """Whatever the last life of the server left behind is not read any more."""
    link = bench.link(redis_server.url)
    await link.ready()
    before = link.keys.incarnation
    redis_server.restart()
    await eventually_async(lambda: link.connection and link.keys.incarnation != before)


async def test_a_promotion_is_noticed_on_a_connection_that_stays(
    bench: Bench, redis_server: RedisServer
) -> None:
    """While the shard follows another server it is unavailable; leading again it is a new life."""
    with RedisServer() as other:
        link = bench.link(redis_server.url)
        await link.ready()
        before = link.keys.incarnation
        shard: Any = redis.Redis.from_url(redis_server.url)
        shard.replicaof("127.0.0.1", other.port)
        await eventually_async(lambda: link.connection is None, 15)
        with pytest.raises(ShardUnavailable):
            await link.ready()
        shard.replicaof("no", "one")
        await eventually_async(lambda: link.connection and link.keys.incarnation != before, 15)
        shard.close()


async def test_a_write_to_a_replica_is_not_executed(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """READONLY is a refusal: definite, also in the moment before the link has noticed."""
    with RedisServer() as other:
        link = bench.link(redis_server.url)
        await link.ready()
        counting.shard.replicaof("127.0.0.1", other.port)
        with pytest.raises(ShardUnavailable) as caught:
            await link.run(counting.script, EPOCH, counting.build)
        assert caught.value.definite
        assert counting.executions() == 0


async def test_whoever_is_connected_keeps_the_counter_alive(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """Positions never begin anew while a process is there, however seldom anything is sent."""
    link = bench.link(redis_server.url)
    await link.ready()
    counting.shard.set(link.keys.seq, 7, px=60_000)
    await eventually_async(lambda: counting.shard.pttl(link.keys.seq) > 60_000)
    assert counting.shard.get(link.keys.seq) == b"7"


async def test_a_blocking_read_can_be_ended(bench: Bench, redis_server: RedisServer) -> None:
    """As if its time were over, also if it begins to block only after it was interrupted."""
    link = bench.link(redis_server.url)
    await link.ready()
    reader = await Connection.open(
        link.endpoint, "shard", connect_timeout_s=5.0, timeout_s=SETTINGS.timeout_s
    )

    def interrupt() -> None:
        link.interrupt(reader, interrupt)

    interrupt()
    reply = await reader.execute(("BLPOP", "k", 60), timeout_s=60)
    assert reply is None
    assert reader.lost is None
    reader.close()
    interrupt()  # of a connection that is lost: nothing


async def test_closing_ends_everything(
    bench: Bench, redis_server: RedisServer, counting: Counting
) -> None:
    """Calls in flight fail as what they are, later ones definitely, and no task is left."""
    link = bench.link(redis_server.url)
    connection = await link.ready()
    in_flight = asyncio.ensure_future(connection.execute(("BLPOP", "k", 30), timeout_s=60))
    await eventually_async(lambda: counting.shard.info("clients")["blocked_clients"] == 1)
    await link.close()
    with pytest.raises(DeliveryUnknown):
        await in_flight
    with pytest.raises(ShardUnavailable):
        await link.ready()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Failing(CredentialProvider):
    """Where the password comes from has an outage of its own at first."""

    def __init__(self, failures: int, password: str) -> None:
        self.failures = failures
        self._password = password

    def get_credentials(self) -> tuple[str]:
        if self.failures:
            self.failures -= 1
            raise LookupError("the vault is sealed")
        return (self._password,)


async def test_a_link_survives_whatever_happens_while_it_connects(bench: Bench) -> None:
    """Errors of foreign code are told as unavailability, and the link tries again."""
    with RedisServer(password="secret") as server:
        provider = Failing(3, "secret")
        host = {"host": "127.0.0.1", "port": server.port, "credential_provider": provider}
        link = link_to(host, SETTINGS, bench.counters)
        bench._links.append(link)
        with pytest.raises(ShardUnavailable, match="vault"):
            await link.ready()
        await eventually_async(lambda: link.connection is not None)
        assert provider.failures == 0


async def test_links_are_made_when_they_are_needed(redis_server: RedisServer) -> None:
    """One per shard and loop, however often it is asked for; unknown shards are an error."""
    with RedisServer() as other:
        hosts = endpoints_of([redis_server.url, other.url])
        links = Links(fixed_topologies(hosts), SETTINGS, Counters())
        assert links.connected() == {}
        first = links.to(hosts[0].id)
        assert links.to(hosts[0].id) is first
        with pytest.raises(Redirected):
            links.to("nobody")
        assert {link.shard for link in links.all()} == {host.id for host in hosts}
        await asyncio.gather(*(link.ready() for link in links.all()))
        assert links.connected() == {host.id: True for host in hosts}
        other.kill()
        await eventually_async(lambda: links.connected() == {hosts[0].id: True, hosts[1].id: False})
        await links.close()
        assert links.connected() == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}


# -- topologies


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


async def test_a_heartbeat_is_one_look_at_little(bench: Bench, counting: Counting) -> None:
    """Every process sends it to every shard: clock, life and epoch, and nothing else."""
    link = bench.link(counting.shard_url)
    await link.ready()
    await eventually_async(lambda: counting.calls("pexpire") == 4)  # with the first, and seldom
    counting.shard.config_resetstat()
    asked = 0

    def calls(command: str) -> int:
        nonlocal asked
        asked += 1  # by INFO
        return counting.calls(command)

    await eventually_async(lambda: calls("get") >= 3)
    beats = calls("get")
    assert beats - 1 <= calls("info") - asked <= beats + 1
    assert beats - 1 <= calls("time") <= beats + 1
    others = ("pexpire", "evalsha", "client", "client|id")
    assert [calls(name) for name in others] == [0, 0, 0, 0]


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
