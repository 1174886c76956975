"""What a process tells the shards of itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cluster_layer.administration import open_cluster
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import endpoints_of
from cluster_layer.keys import Keys
from cluster_layer.presence import MAX_REASON, REPORT_S, Presence, Teller
from cluster_layer.routing import fixed_topology
from cluster_layer.running import HEARTBEAT_S, LinkSettings
from tests.support.layers import open_layer
from tests.support.parts import links_to
from tests.support.waiting import eventually_async

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)


def presence(unreachable: dict[str, str] | None = None) -> Presence:
    return Presence("p1", "asgi", epoch=lambda: 7, unreachable=lambda: unreachable or {})


def test_a_report_says_who_it_is_and_how_far() -> None:
    """Who receives has settled what it says; who only sends has no duties."""
    ours = presence({"s2": "connection refused"})
    report = json.loads(ours.report())
    assert (report["id"], report["prefix"], report["role"]) == ("p1", "asgi", "process")
    assert report["host"]
    assert report["pid"] > 0
    assert report["unreachable"] == {"s2": "connection refused"}
    assert (report["receives"], report["epoch"], report["settled"]) == (False, 7, 7)
    ours.receives = True
    ours.settled = 6
    assert json.loads(ours.report())["settled"] == 6


def test_a_report_is_bounded() -> None:
    """However many shards are gone, and however long a reason is."""
    ours = presence({f"shard-{number}": "gone" for number in range(1000)})
    ours.waiting_for = "x" * 10_000
    report = json.loads(ours.report())
    assert len(report["waiting_for"]) == MAX_REASON
    assert len(report["unreachable"]) <= 100


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    client: Any = redis.Redis.from_url(redis_server.url, protocol=2)
    yield client
    client.close()


async def test_a_shard_knows_a_process_before_it_is_used(
    redis_server: RedisServer, client: Any
) -> None:
    """Who may write and join there is waited for by changes, from the first moment on."""
    links = links_to(redis_server.url, settings=SETTINGS, counters=Counters(), presence=presence())
    (link,) = links.all()
    await link.ready()
    assert client.hexists(link.keys.cluster.reports, "p1")
    await links.close()


async def test_a_link_reports_while_it_lives(redis_server: RedisServer, client: Any) -> None:
    """With each heartbeat, at once when asked to, and takes it back when it closes."""
    ours = presence()
    links = links_to(redis_server.url, settings=SETTINGS, counters=Counters(), presence=ours)
    (link,) = links.all()
    await link.ready()
    cluster = link.keys.cluster
    await eventually_async(lambda: client.hexists(cluster.reports, "p1"))
    first = client.zscore(cluster.beats, "p1")
    await eventually_async(lambda: client.zscore(cluster.beats, "p1") > first)
    ours.waiting_for = "a shard"
    links.report()
    await eventually_async(lambda: b"a shard" in client.hget(cluster.reports, "p1"))
    await links.close()
    assert not client.exists(cluster.reports, cluster.beats)


async def test_a_change_knows_of_a_process_from_its_first_join_on(
    shards: list[RedisServer],
) -> None:
    """When a join returns, the shards know of the process, so that no change forgets it."""
    async with open_layer(shards) as sender, open_layer(shards) as layer:
        await sender.send("nobody", {"type": "test"})
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        ours = channel.split(".")[-1].partition("!")[0]
        async with open_cluster(fixed_topology(endpoints_of([s.url for s in shards]))) as cluster:
            (report,) = [r for r in (await cluster.processes()).values() if r.id in ours]
        assert (report.receives, report.alive, report.role) == (True, True, "process")


def test_a_heartbeat_says_no_more_than_it_must() -> None:
    """The whole report first, when it has changed, and now and then; else that nothing has."""
    ours, keys = presence(), Keys("asgi", "0" * 16, "a" * 16, 0)
    teller = Teller(ours)

    def says(now: float) -> object:
        return teller.next(keys, shard_time_ms=now * 1000, now=now)[0]

    assert teller.anew(keys, now=100.0)[0] == "EVALSHA"
    assert [says(101.0), says(102.0)] == ["ZADD", "ZADD"]
    ours.waiting_for = "a shard"
    assert [says(103.0), says(104.0)] == ["EVALSHA", "ZADD"]
    assert [says(103.0 + REPORT_S - 0.1), says(103.0 + REPORT_S)] == ["ZADD", "EVALSHA"]


async def test_a_report_that_is_gone_comes_back_with_the_heartbeat(
    redis_server: RedisServer, client: Any
) -> None:
    """Another loop of the process has taken it back, or the shard was emptied."""
    ours = presence()
    links = links_to(redis_server.url, settings=SETTINGS, counters=Counters(), presence=ours)
    others = links_to(redis_server.url, settings=SETTINGS, counters=Counters(), presence=ours)
    (link,), (other,) = links.all(), others.all()
    await link.ready()
    await other.ready()
    cluster = link.keys.cluster
    await others.close()
    await eventually_async(lambda: client.hexists(cluster.reports, "p1"), 3 * HEARTBEAT_S)
    assert client.zscore(cluster.beats, "p1") is not None
    client.flushall()
    await eventually_async(lambda: client.hexists(cluster.reports, "p1"), 3 * HEARTBEAT_S)
    assert client.pttl(cluster.reports) > 0
    assert client.pttl(cluster.beats) > 0
    await links.close()


async def test_a_heartbeat_is_told_by_the_clock_of_the_shard(
    redis_server: RedisServer, client: Any
) -> None:
    """Also in between, when the process says the time: it never looks silent while it lives."""
    links = links_to(redis_server.url, settings=SETTINGS, counters=Counters(), presence=presence())
    (link,) = links.all()
    await link.ready()
    beats = link.keys.cluster.beats
    for _ in range(3):
        before = client.zscore(beats, "p1")

        def is_later(than: float = before) -> bool:
            return bool(client.zscore(beats, "p1") > than)

        await eventually_async(is_later)
        seconds, microseconds = client.time()
        assert seconds * 1000 + microseconds / 1000 - client.zscore(beats, "p1") < 1000
    await links.close()
