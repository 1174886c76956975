"""The same under uvloop, in processes of its own, talking to one under asyncio."""

import asyncio

from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    open_layer,
    receive_numbers,
    shared_config,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from tests.support.workers import Worker


async def test_a_process_under_uvloop_sends_and_receives(shards: list[RedisServer]) -> None:
    """All three ways in both directions, joins, leaves and kicks."""
    config = shared_config(shards, capacity=500)
    async with open_layer(**config) as layer, Worker(config, uvloop=True) as other:
        for group in await names_on_all_shards(layer, "group"):
            own, theirs = await layer.new_channel(), await other.call("join", group)
            await layer.group_add(group, own)
            assert await other.call("group_send_numbers", group, 0, 50) == ["ok"] * 50
            assert await receive_numbers(layer, own, 50) == list(range(50))
            collected = await other.call("collect", theirs, 0.5)
            assert [message["n"] for message in collected] == list(range(50))
            await layer.send(theirs, numbered(1))
            assert await other.call("receive", theirs) == numbered(1)
            await layer.send("orders", numbered(2))
            assert await other.call("receive", "orders") == numbered(2)
            await layer.group_discard(group, theirs)
            await layer.group_send(group, numbered(3))
            await layer.send(theirs, numbered(4))
            assert await other.call("receive", theirs) == numbered(4)


async def test_a_process_under_uvloop_heals(redis_server: RedisServer) -> None:
    """Cuts and a blank restart: its receivers wait and its groups flow again."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        config = shared_config([proxy], capacity=1000)
        async with open_layer(**config) as layer, Worker(config, uvloop=True) as other:
            member = await other.call("join", "group")
            for disturb in (proxy.cut, redis_server.restart, proxy.cut):
                receiver = asyncio.create_task(other.call("receive", member, 60))
                await asyncio.to_thread(disturb)

                async def delivered(receiver: asyncio.Task[object] = receiver) -> bool:
                    await asyncio.gather(
                        layer.group_send("group", numbered(1)), return_exceptions=True
                    )
                    return receiver.done()

                await eventually_async(delivered)
                assert await receiver == numbered(1)
