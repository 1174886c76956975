"""P6: cut connections and restarted shards heal, with nobody joining again."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer, start_shards
from cluster_layer.endpoints import Endpoint
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    open_layer,
    outcome_of,
    receive,
    shared_config,
)
from tests.support.proxy import TcpProxy
from tests.support.workers import Worker

HEAL_S = 5.0


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


async def _seconds_until_delivered(
    send: Callable[[int], Awaitable[object]], layer: ClusterChannelLayer, channel: str
) -> float:
    """Send numbers until one arrives; how long that took."""
    begin = time.monotonic()
    receiver = asyncio.create_task(layer.receive(channel))
    for number in itertools.count():
        await outcome_of(send(number))
        done, _ = await asyncio.wait([receiver], timeout=0.05)
        if done:
            assert receiver.result()["type"] == "test.message"
            return time.monotonic() - begin
        assert time.monotonic() - begin < 30, "nothing is delivered"
    raise AssertionError


async def test_group_messages_flow_again_after_a_cut(proxy: TcpProxy) -> None:
    """All connections are reset, ten times; the member has joined once."""
    async with open_layer([proxy], capacity=1000, timeout=0.3) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for _ in range(10):
            proxy.cut()
            seconds = await _seconds_until_delivered(
                lambda number: layer.group_send("group", numbered(number)), layer, channel
            )
            assert seconds < HEAL_S


@pytest.mark.parametrize("graceful", [False, True])
async def test_a_blank_restart_needs_no_joining_again(
    redis_server: RedisServer, graceful: bool
) -> None:
    """A shard is killed and comes back empty: members, inboxes and queues work again."""
    async with open_layer([redis_server], capacity=1000) as layer:
        channel, member = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("group", member)
        ways: dict[str, tuple[str, Callable[[int], Awaitable[object]]]] = {
            "group": (member, lambda n: layer.group_send("group", numbered(n))),
            "direct": (channel, lambda n: layer.send(channel, numbered(n))),
            "normal": ("orders", lambda n: layer.send("orders", numbered(n))),
        }
        for way, (source, send) in ways.items():
            (redis_server.stop if graceful else redis_server.kill)()
            redis_server.start()
            seconds = await _seconds_until_delivered(send, layer, source)
            print(f"{way} messages flow again {seconds:.2f} s after the restart")
            assert seconds < HEAL_S


async def test_a_member_that_another_process_added_is_back_after_a_restart(
    redis_server: RedisServer,
) -> None:
    """The channel's process serves it and registers it again, like one that it added itself."""
    config = shared_config([redis_server], capacity=1000)
    async with open_layer(**config) as layer, open_layer(**config) as other:
        channel = await layer.new_channel()
        await other.group_add("group", channel)
        await other.group_send("group", numbered(1))
        assert await receive(layer, channel) == numbered(1)
        redis_server.kill()
        redis_server.start()
        seconds = await _seconds_until_delivered(
            lambda number: other.group_send("group", numbered(number)), layer, channel
        )
        assert seconds < HEAL_S


async def test_receivers_outlive_every_outage(proxy: TcpProxy, redis_server: RedisServer) -> None:
    """receive() waits through a refused, a cut, a silent and a restarted shard."""
    async with open_layer([proxy], timeout=0.5, capacity=1000) as layer:
        channel, member = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("group", member)
        inbox = channel.partition("!")[0] + "!"
        receivers = {
            name: asyncio.create_task(layer.receive(name)) for name in (channel, member, "orders")
        }
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(1)
        proxy.heal()
        proxy.blackhole()
        await asyncio.sleep(1)
        proxy.cut()
        proxy.heal()
        redis_server.kill()
        await asyncio.sleep(0.5)
        redis_server.start()
        assert not any(receiver.done() for receiver in receivers.values())
        assert inbox != channel
        for name, receiver in receivers.items():
            begin = time.monotonic()
            while not receiver.done():
                assert time.monotonic() - begin < 30
                send = layer.group_send("group", numbered(1)) if name == member else None
                await outcome_of(send or layer.send(name, numbered(1)))
                await asyncio.wait([receiver], timeout=0.05)
            assert receiver.result() == numbered(1)


@pytest.mark.parametrize("direction", ["requests", "replies", "both"])
async def test_a_silent_connection_is_noticed_and_replaced(proxy: TcpProxy, direction: str) -> None:
    """Connections stay open and nothing passes any more: new ones take their place."""
    async with open_layer([proxy], timeout=0.5, capacity=1000) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", numbered(0))
        assert await receive(layer, channel) == numbered(0)
        before = proxy.connections_accepted
        proxy.blackhole(direction, swallow=True)  # type: ignore[arg-type]
        begin = time.monotonic()
        while proxy.connections_accepted == before:
            assert time.monotonic() - begin < 30
            await asyncio.sleep(0.05)
        proxy.heal()
        seconds = await _seconds_until_delivered(
            lambda number: layer.group_send("group", numbered(number)), layer, channel
        )
        assert seconds < HEAL_S


async def test_one_lost_shard_leaves_the_others_alone() -> None:
    """Names on living shards are served as if nothing were, also for a reader that was there."""
    with start_shards(3) as servers:
        async with open_layer(servers, timeout=0.5) as layer:
            names = await names_on_all_shards(layer, "group")
            members = {name: await layer.new_channel() for name in names}
            for name, channel in members.items():
                await layer.group_add(name, channel)
            servers[0].kill()
            lost = Endpoint.from_url(servers[0].url).id
            for name, channel in members.items():
                if await layer.locate(name) == lost:
                    assert await outcome_of(layer.group_send(name, numbered(1))) != "ok"
                else:
                    await layer.group_send(name, numbered(1))
                    assert await receive(layer, channel) == numbered(1)


@pytest.mark.slow
async def test_nothing_is_raised_in_a_minute_without_messages(shards: list[RedisServer]) -> None:
    """Idle receivers of all kinds sit still for 60 s and then get what comes."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as other:
        channel, member = await layer.new_channel(), await layer.new_channel()
        theirs = await other.call("join", "group")
        await layer.group_add("group", member)
        receivers = [asyncio.create_task(layer.receive(n)) for n in (channel, member, "orders")]
        remote = asyncio.create_task(other.call("receive", theirs, 90))
        done, _ = await asyncio.wait([*receivers, remote], timeout=61)
        assert not done
        await other.call("layer", "send", channel, numbered(1))
        await other.call("layer", "group_send", "group", numbered(2))
        await layer.send("orders", numbered(3))
        assert await asyncio.gather(*receivers, remote) == [
            numbered(1),
            numbered(2),
            numbered(3),
            numbered(2),
        ]
