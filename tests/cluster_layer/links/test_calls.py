"""Calls over links: what is sent again, what never, and what a caller is told."""

import asyncio
from collections.abc import Sequence

import pytest

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from tests.cluster_layer.links.bench import HURRIED, Bench, Counting
from tests.support.parts import EPOCH
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async


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
