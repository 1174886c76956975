"""P8: queues, keys and memory have bounds, and no call hangs."""

import asyncio
import gc
import time
from collections.abc import Awaitable

import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    numbered,
    only_end_comes,
    open_layer,
    outcome_of,
    receive,
    receive_numbers,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

CYCLES = 10_000


async def _consumer(layer: ClusterChannelLayer, number: int) -> None:
    """Connect, join, hear one message, disconnect; every third forgets to leave its groups."""
    channel = await layer.new_channel()
    receiver = asyncio.create_task(layer.receive(channel))
    groups = [f"room-{number % 50}", f"user-{number}"]
    for group in groups:
        await layer.group_add(group, channel)
    if number % 10 == 0:
        await layer.group_send(groups[1], numbered(number))
        async with asyncio.timeout(20):
            assert await receiver == numbered(number)
        # As Channels does, which always listens for the next message until the disconnect.
        receiver = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
    if number % 3:
        for group in groups:
            await layer.group_discard(group, channel)
    receiver.cancel()
    await asyncio.gather(receiver, return_exceptions=True)


def _kept(server: RedisServer) -> tuple[int, int]:
    """Keys, and pub/sub channels with subscribers."""
    with redis.Redis(port=server.port) as client:
        return client.dbsize(), len(client.pubsub_channels())


@pytest.mark.slow
async def test_churn_leaves_nothing_behind(redis_server: RedisServer) -> None:
    """10,000 consumers come and go, a third without leaving: keys and memory stay flat."""
    async with open_layer([redis_server], expiry=1) as layer:
        await _consumer(layer, 0)

        async def settled() -> bool:
            keys, channels = _kept(redis_server)
            return keys <= 5 and channels <= 3

        await eventually_async(settled)
        begin_objects = 0
        for first in range(0, CYCLES, 50):
            numbers = range(first, first + 50)
            await asyncio.gather(*(_consumer(layer, number) for number in numbers))
            if first == 1000:
                await eventually_async(settled)
                gc.collect()
                begin_objects = len(gc.get_objects())
        await eventually_async(settled, what="keys and subscriptions are gone")
        gc.collect()
        grown = len(gc.get_objects()) - begin_objects
        print(f"after {CYCLES} cycles: {_kept(redis_server)}, {grown:+} Python objects")
        assert grown < 2_000


@pytest.mark.parametrize("paused", [True, False])
async def test_no_call_hangs_without_its_shard(redis_server: RedisServer, paused: bool) -> None:
    """Paused or gone: every call ends with a typed error at its deadline, receive() waits."""
    async with open_layer([redis_server], timeout=1, connect_timeout=1) as layer:
        channel, other = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", numbered(1))
        assert await receive(layer, channel) == numbered(1)
        receivers = [asyncio.create_task(layer.receive(name)) for name in (channel, "orders")]
        (redis_server.pause if paused else redis_server.kill)()
        begin = time.monotonic()
        calls: list[Awaitable[object]] = [
            layer.send(channel, numbered(2)),
            layer.send("orders", numbered(2)),
            layer.group_send("group", numbered(2)),
            layer.group_add("another", other),
            layer.group_add("group", "orders"),
            layer.group_discard("group", "orders"),
            layer.flush(),
        ]
        outcomes = await asyncio.gather(*(outcome_of(call) for call in calls))
        seconds = time.monotonic() - begin
        print(f"{outcomes} after {seconds:.1f} s")
        assert seconds < 8
        assert "ok" not in outcomes
        assert not any(receiver.done() for receiver in receivers)
        for receiver in receivers:
            receiver.cancel()
        redis_server.resume()


async def test_a_thousand_calls_to_a_silent_shard_all_end(redis_server: RedisServer) -> None:
    """A backlog behind a paused shard is answered by the deadline of each call."""
    async with open_layer([redis_server], timeout=1) as layer:
        await layer.send("orders", numbered(0))
        redis_server.pause()
        begin = time.monotonic()
        calls = (layer.send(f"orders-{n}", numbered(n)) for n in range(1000))
        outcomes = await asyncio.gather(*(outcome_of(call) for call in calls))
        redis_server.resume()
        assert time.monotonic() - begin < 8
        assert "ok" not in outcomes


async def test_closing_does_not_wait_for_a_silent_shard(redis_server: RedisServer) -> None:
    """close() has a deadline as well."""
    async with open_layer([redis_server], timeout=1) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        receiver = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0.1)
        receiver.cancel()
        redis_server.pause()
        async with asyncio.timeout(10):
            await layer.close()
        redis_server.resume()


async def test_an_unread_inbox_is_bounded(redis_server: RedisServer) -> None:
    """A slow reader's inbox and buffers hold its capacity; the rest is refused or dropped."""
    async with open_layer([redis_server], capacity=50) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        outcomes = [await outcome_of(layer.send(channel, numbered(n))) for n in range(300)]
        for number in range(300):
            await layer.group_send("group", numbered(1000 + number))
        accepted = outcomes.count("ok")
        assert accepted >= 50
        numbers = await receive_numbers(layer, channel, 50)
        assert numbers == sorted(numbers)
        with redis.Redis(port=redis_server.port) as client:
            lengths = [
                client.xlen(key) for key in client.scan_iter() if client.type(key) == b"stream"
            ]
        assert sum(lengths) <= 50


async def test_every_key_has_a_time_to_live(redis_server: RedisServer) -> None:
    """Whatever happens to the processes, the shard forgets what they left."""
    async with open_layer([redis_server]) as layer, open_layer([redis_server]) as other:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for member in (channel, "orders", "specific.0123456789abcdef!x"):
            await other.group_add("group", member)
            await layer.group_add("group", member)
            await layer.group_send("group", numbered(1))
            await layer.send(member, numbered(2))
        await layer.group_discard("group", "orders")
        await layer.send("orders", numbered(3))
        await receive(layer, channel)
        with redis.Redis(port=redis_server.port) as client:
            lives = {key: client.ttl(key) for key in client.scan_iter()}
        assert lives
        assert [key for key, seconds in lives.items() if seconds < 0] == []


async def test_connections_are_a_few_per_shard(redis_server: RedisServer) -> None:
    """1,000 receivers and 200 groups share the connections of their process."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        async with open_layer([proxy]) as layer:
            channels = [await layer.new_channel() for _ in range(1000)]
            receivers = [asyncio.create_task(layer.receive(channel)) for channel in channels]
            normal = [asyncio.create_task(layer.receive(f"orders-{n}")) for n in range(100)]
            for number, channel in enumerate(channels):
                await layer.group_add(f"group-{number % 200}", channel)
            for number in range(200):
                await layer.group_send(f"group-{number}", numbered(number))
            async with asyncio.timeout(20):
                heard = await asyncio.gather(*receivers)
            assert [message["n"] for message in heard] == [n % 200 for n in range(1000)]
            assert proxy.connections_open <= 4
            for receiver in normal:
                receiver.cancel()
            await asyncio.gather(*normal, return_exceptions=True)
            assert await only_end_comes(layer, "orders-5")
