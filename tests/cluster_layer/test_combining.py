"""Messages that leave in one call: each has its own outcome, and none is written twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.combining import MAX_COMBINED
from cluster_layer.connection import WRITE_AT
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ChannelFull, DeliveryUnknown, ShardUnavailable
from tests.support.layers import (
    DEADLINE_S,
    numbered,
    numbers_before_end,
    open_layer,
    outcome_of,
    receive_numbers,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

CHANNEL = "specific.0123456789abcdef!a"


@pytest.fixture
async def layer(redis_server: RedisServer) -> AsyncIterator[ClusterChannelLayer]:
    async with open_layer([redis_server], capacity=1000) as layer:
        await layer.open()
        await layer.send("orders", numbered(0))  # connected, and the topology is there
        yield layer


async def _appends(server: RedisServer, work: Any) -> int:
    """How many calls of a script a shard sees while something is done."""
    with redis.Redis(port=server.port) as client:
        client.config_resetstat()
        await work
        calls = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
        return int(calls["calls"]) - _reports(client)


def _reports(client: Any) -> int:
    """Of these, what every process reports once in a while: they alone write to a hash."""
    return int(client.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"])


async def test_messages_of_one_step_leave_in_few_calls(
    redis_server: RedisServer, layer: ClusterChannelLayer
) -> None:
    """As many as fit into a call, in the order in which they were sent."""
    channel = await layer.new_channel()
    sends = [layer.send(channel, numbered(number)) for number in range(3 * MAX_COMBINED)]
    assert await _appends(redis_server, asyncio.gather(*sends)) <= 5
    assert await receive_numbers(layer, channel, 3 * MAX_COMBINED) == list(range(3 * MAX_COMBINED))


@pytest.mark.parametrize("confirm", [True, False], ids=["confirmed", "unconfirmed"])
async def test_a_call_that_is_full_when_much_waits_to_be_written_is_written_once(
    layer: ClusterChannelLayer, confirm: bool
) -> None:
    """P1: the write that it sets off takes along what is next, and not the same call again."""
    channel = await layer.new_channel()
    sends = [layer.group_send("group", numbered(number)) for number in range(2 * WRITE_AT)]
    sends += [
        layer.send(channel, numbered(number), confirm=confirm)
        for number in range(3 * MAX_COMBINED + 1)
    ]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*sends)
    await layer.send(channel, numbered(-1, end=True))
    assert await numbers_before_end(layer, channel) == list(range(3 * MAX_COMBINED + 1))


async def test_each_inbox_has_a_call_of_its_own(
    redis_server: RedisServer, layer: ClusterChannelLayer
) -> None:
    """Messages for several processes, mixed, reach each of them whole and in order."""
    channels = [await layer.new_channel(stem) for stem in ("a", "b", "c")]
    sends = [layer.send(channels[number % 3], numbered(number)) for number in range(60)]
    assert await _appends(redis_server, asyncio.gather(*sends)) <= 4
    for first, channel in enumerate(channels):
        assert await receive_numbers(layer, channel, 20) == list(range(first, 60, 3))


async def test_a_full_inbox_takes_the_first_and_refuses_the_rest(
    redis_server: RedisServer,
) -> None:
    """ChannelFull for exactly those for which there was no room."""
    async with open_layer([redis_server], capacity=10, channel_capacity={"*!big": 12}) as layer:
        await layer.open()
        await layer.send("orders", numbered(0))
        names = [CHANNEL] * 15 + ["specific.0123456789abcdef!big"] * 5
        sends = [layer.send(name, numbered(number)) for number, name in enumerate(names)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        sent = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert sent == [*range(10), 15, 16]
        assert all(isinstance(o, ChannelFull) for o in outcomes if o is not None)
        assert layer.stats()["shards"][await layer.locate(CHANNEL)]["sent"] == 13


async def test_a_refusal_costs_nobody_his_message(
    redis_server: RedisServer, layer: ClusterChannelLayer
) -> None:
    """After a flush of scripts each is written once, by itself."""
    channel = await layer.new_channel()
    with redis.Redis(port=redis_server.port) as client:
        client.script_flush()
    await asyncio.gather(*(layer.send(channel, numbered(number)) for number in range(20)))
    assert sorted(await receive_numbers(layer, channel, 20)) == list(range(20))


async def test_a_lost_answer_leaves_all_of_them_unknown(redis_server: RedisServer) -> None:
    """P1, P9: none is written again, and each caller is told that it may have been written."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        async with open_layer([proxy], timeout=2, capacity=1000) as layer:
            channel = await layer.new_channel()
            await layer.open()
            await layer.send(channel, numbered(-1))
            assert await receive_numbers(layer, channel, 1) == [-1]
            proxy.lose_next_reply(b"EVALSHA")
            sends = [layer.send(channel, numbered(number)) for number in range(20)]
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            assert all(isinstance(outcome, DeliveryUnknown) for outcome in outcomes)
            assert len({id(outcome) for outcome in outcomes}) == 20

            async def sent() -> bool:
                return await outcome_of(layer.send(channel, numbered(20))) == "ok"

            await eventually_async(sent)
            assert await receive_numbers(layer, channel, 21) == list(range(21))
            assert layer.stats()["shards"][await layer.locate(channel)]["unknown"] == 20


async def test_what_has_not_left_when_the_connection_is_lost_was_not_sent(
    redis_server: RedisServer, layer: ClusterChannelLayer
) -> None:
    """Definite: no byte of it was written."""
    link = layer._hosts.sender().links.to(await layer.locate(CHANNEL))
    sends = [asyncio.ensure_future(layer.send(CHANNEL, numbered(n))) for n in range(5)]
    await asyncio.sleep(0)
    assert link.connection is not None
    link.connection.close("a test")
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert all(isinstance(outcome, ShardUnavailable) for outcome in outcomes)


async def test_a_cancelled_send_does_not_disturb_the_others(
    redis_server: RedisServer, layer: ClusterChannelLayer
) -> None:
    """Its message may have been sent; the answers of the rest find their callers."""
    channel = await layer.new_channel()
    sends = [asyncio.ensure_future(layer.send(channel, numbered(n))) for n in range(9)]
    await asyncio.sleep(0)
    sends[4].cancel()
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [4]
    assert await receive_numbers(layer, channel, 9) == list(range(9))
