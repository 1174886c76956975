"""Links that come up, break and end, and how they follow a shard's lives."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.exceptions
from redis.credentials import CredentialProvider

from cluster_layer.connection import Connection
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import endpoints_of
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.links import Links
from cluster_layer.running import Redirected
from cluster_layer.topologies import fixed_topologies
from tests.cluster_layer.links.bench import SETTINGS, Bench, Counting
from tests.support.parts import EPOCH, link_to
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async


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
