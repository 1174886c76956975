"""The subscription of one shard: confirmed, in order, kept across cuts, and caught up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.running import HEARTBEAT_S, LinkSettings
from cluster_layer.subscriber import Subscriber, SubscriberConnection, _in_order
from tests.support.parts import link_to
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)


class Process:
    """Whoever the subscriber works for: the groups it wants, and everything that it was told."""

    def __init__(self, url: str, settings: LinkSettings = SETTINGS) -> None:
        self.groups: list[str] = []
        self.heard: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.missed = 0
        self.positions: dict[str, int] = {}
        self.process_id = "1"
        self.announced: list[int] = []
        self.link = link_to(url, settings)
        self.subscriber = Subscriber(self.link, self)

    def groups_on(self, shard: str) -> list[str]:
        assert shard == "shard"
        return self.groups

    def on_published(self, shard: str, keys: Keys, channel: bytes, payload: bytes) -> None:
        assert shard == "shard"
        name = "control" if channel == keys.control else keys.group_of(channel)
        self.heard.append((name, payload.decode()))
        self.events.append(payload.decode())

    def on_subscription(self, shard: str, incarnation: str | None) -> None:
        assert shard == "shard"
        self.events.append("up" if incarnation else "down")

    def last_position(self, shard: str, incarnation: str) -> int | None:
        assert shard == "shard"
        return self.positions.get(incarnation)

    def on_announcement(self, shard: str, epoch: int) -> None:
        assert shard == "shard"
        self.announced.append(epoch)

    def on_missed(self, shard: str, publications: int) -> None:
        assert shard == "shard"
        self.missed += publications

    async def join(self, *groups: str) -> None:
        self.groups += groups
        for group in groups:
            await self.subscriber.subscribe([group])

    async def close(self) -> None:
        await asyncio.gather(self.subscriber.stop(), return_exceptions=True)
        await self.link.close()


class Shard:
    """Direct access, by the keys of the process under test."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url)

    def publish(self, process: Process, group: str, payload: str) -> int:
        return int(self.redis.publish(process.link.keys.group(group), payload))

    def subscribed(self, process: Process, group: str) -> bool:
        name = process.link.keys.group(group)
        return bool(self.redis.pubsub_numsub(name)[0][1])


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def shard(redis_server: RedisServer) -> Iterator[Shard]:
    shard = Shard(redis_server)
    yield shard
    shard.redis.close()


@pytest.fixture
async def process(proxy: TcpProxy) -> AsyncIterator[Process]:
    process = Process(proxy.url)
    await process.link.ready()  # what the tests cut must have come up
    yield process
    await process.close()


async def test_a_confirmed_subscription_hears_everything(process: Process, shard: Shard) -> None:
    """From the moment on in which subscribe() returns, in the order of publication."""
    await process.join("a", "b")
    for number in range(50):
        assert shard.publish(process, "ab"[number % 2], str(number)) == 1
    await process.subscriber.barrier()
    assert process.heard == [("ab"[number % 2], str(number)) for number in range(50)]


async def test_after_unsubscribing_nothing_is_published_to_us(
    process: Process, shard: Shard
) -> None:
    """The shard forgets us for this group alone."""
    await process.join("a", "b")
    process.subscriber.unsubscribe("a")
    await process.subscriber.barrier()
    assert shard.publish(process, "a", "x") == 0
    assert shard.publish(process, "b", "y") == 1


async def test_a_barrier_comes_after_all_that_was_published_before(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """Also when the way is slow."""
    await process.join("a")
    proxy.delay(0.1, "replies")
    shard.publish(process, "a", "before")
    await process.subscriber.barrier()
    assert process.heard == [("a", "before")]


async def test_the_subscription_survives_a_cut(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """All groups are subscribed again, without anybody asking; the owner is told of both."""
    groups = [f"group-{number}" for number in range(1200)]
    process.groups += groups
    await process.subscriber.entered()
    proxy.cut()
    await eventually_async(lambda: process.events == ["up", "down", "up"])
    await process.subscriber.barrier()
    for group in (groups[0], groups[-1]):
        assert shard.publish(process, group, group) == 1
    await eventually_async(lambda: process.events[-2:] == [groups[0], groups[-1]])


async def test_what_changes_while_it_reconnects_is_in_force_afterwards(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """Groups that were left meanwhile are not subscribed, joined ones are once that returns."""
    await process.join("kept", "left")
    proxy.blackhole("replies")
    proxy.cut()
    await eventually_async(lambda: process.events[-2:] == ["up", "down"])
    process.groups.remove("left")
    process.subscriber.unsubscribe("left")
    joining = asyncio.ensure_future(process.join("joined"))
    proxy.heal()
    await joining
    await process.subscriber.barrier()
    subscribed = {name for name in ("kept", "left", "joined") if shard.subscribed(process, name)}
    assert subscribed == {"kept", "joined"}


async def test_membership_changes_of_a_cut_are_caught_up_before_any_message(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """The log is read from the last position on, and what arrives meanwhile is held back."""
    await process.join("a")
    keys = process.link.keys
    process.positions[keys.incarnation] = 5
    shard.redis.zadd(keys.log, {"5:old": 5, "6:kick": 6, "9:store": 9})
    process.events.clear()
    proxy.cut()
    await eventually_async(lambda: "up" in process.events)
    await eventually_async(lambda: shard.publish(process, "a", "10:message") == 1)
    await process.subscriber.barrier()
    assert process.events[:4] == ["down", "up", "6:kick", "9:store"]
    assert set(process.events[4:]) == {"10:message"}
    assert ("control", "6:kick") in process.heard


def test_a_change_that_was_also_heard_counts_once() -> None:
    """Working it off twice would end what it had begun."""
    changes = [(b"control", b"6:store"), (b"control", b"8:unstore")]
    held = [(b"group", b"7:message"), (b"group", b"8:unstore"), (b"group", b"9:message")]
    payloads = [payload for _, payload in _in_order(changes, held)]
    assert payloads == [b"6:store", b"7:message", b"8:unstore", b"9:message"]


async def test_a_subscription_to_the_next_life_ends_the_connection_to_the_last(
    process: Process,
) -> None:
    """What is asked for on it would be about what is gone."""
    await process.subscriber.entered()
    link, subscription = process.link, process.subscriber._connection
    assert subscription is not None
    subscription.close("cut")
    old = link.connection
    assert old is not None
    old.incarnation = "another"
    await eventually_async(lambda: process.events == ["up", "down", "up"])
    assert old.lost == "the shard has begun another life"


async def test_a_shard_on_which_nothing_was_seen_needs_no_catching_up(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """Nobody could have changed memberships of a process that was not there."""
    await process.subscriber.entered()
    shard.redis.zadd(process.link.keys.log, {"6:kick": 6})
    proxy.cut()
    await eventually_async(lambda: process.events == ["up", "down", "up"])
    await process.subscriber.barrier()
    assert process.heard == []


async def test_a_dead_shard_is_told_and_outlived(redis_server: RedisServer, shard: Shard) -> None:
    """subscribe() fails while the shard is down; when it is back, so are all groups."""
    process = Process(redis_server.url)
    await process.join("a")
    before = process.link.keys.incarnation
    redis_server.kill()
    await eventually_async(lambda: process.events[-1] == "down")
    with pytest.raises((ShardUnavailable, DeliveryUnknown)):
        await process.subscriber.subscribe(["b"])
    redis_server.start()
    await eventually_async(lambda: process.link.keys.incarnation != before)
    await eventually_async(lambda: shard.subscribed(process, "a"))
    await eventually_async(lambda: process.subscriber._entered)
    await process.join("b")
    assert shard.publish(process, "b", "y") == 1
    await process.close()


async def test_a_silent_shard_is_given_up(redis_server: RedisServer) -> None:
    """The heartbeat notices within its period and the timeout; what waited fails."""
    settings = LinkSettings(prefix="test", timeout_s=0.3, connect_timeout_s=0.3)
    process = Process(redis_server.url, settings)
    await process.join("a")
    redis_server.pause()
    with pytest.raises(DeliveryUnknown):
        await process.subscriber.barrier()
    await eventually_async(lambda: process.events[-1] == "down", HEARTBEAT_S + 2)
    redis_server.resume()
    await eventually_async(lambda: process.events[-1] == "up")
    await process.close()


async def test_a_process_that_is_behind_knows_it(process: Process) -> None:
    """After a stop of the loop, what arrives may have been sent as long ago as the loop stood."""
    await process.subscriber.entered()
    assert process.subscriber.late_s == 0.0
    process.subscriber._tick_at -= 100.0
    assert process.subscriber.late_s > 90.0
    await eventually_async(lambda: process.subscriber.late_s == 0.0)


async def test_a_new_subscription_is_not_behind(process: Process, proxy: TcpProxy) -> None:
    """What arrives after an outage was sent after it, however long it was."""
    await process.subscriber.entered()
    process.subscriber._tick_at -= 100.0
    proxy.cut()
    await eventually_async(lambda: process.events == ["up", "down", "up"])
    assert process.subscriber.late_s == 0.0


async def test_confirmations_are_counted_per_request(redis_server: RedisServer) -> None:
    """A subscription to many groups is confirmed with the last of them, each to its own caller."""
    connection = await SubscriberConnection.open(
        Endpoint.from_url(redis_server.url), "shard", connect_timeout_s=5.0, timeout_s=5.0
    )
    heard: list[bytes] = []
    connection.on_message = lambda _, payload: heard.append(payload)
    many = connection.subscribe([b"c%d" % number for number in range(100)])
    again = connection.subscribe([b"c0"])
    connection.unsubscribe(b"c1")
    await asyncio.gather(many, again, connection.barrier())
    assert connection.lost is None
    connection.close()
    with pytest.raises(ShardUnavailable):
        await connection.subscribe([b"late"])
