"""flush(): afterwards the layer looks empty to every process."""

import asyncio
import time

from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    numbered,
    only_end_comes,
    open_layer,
    receive,
    shared_config,
)
from tests.support.workers import Worker, workers


async def test_flush_empties_every_process(shards: list[RedisServer]) -> None:
    """Messages on shards and in buffers, and memberships, of three processes: all gone."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, workers(3, config) as others:
        members = [await other.call("join", "group") for other in others]
        own = await layer.new_channel()
        await layer.group_add("group", own)
        await layer.group_add("group", "orders")
        for number in range(5):
            await layer.group_send("group", numbered(number))
            for member in members:
                await layer.send(member, numbered(number))
        # Proof that the first messages have arrived in the others' buffers.
        for other, member in zip(others, members, strict=True):
            await other.call("receive", member)
        await layer.flush()
        await layer.group_send("group", numbered(-2))
        for other, member in zip(others, members, strict=True):
            await layer.send(member, numbered(-1, end=True))
            assert (await other.call("receive", member)).get("end")
        assert await only_end_comes(layer, own)
        assert await only_end_comes(layer, "orders")


async def test_what_is_sent_after_flush_arrives(shards: list[RedisServer]) -> None:
    """A flushed layer is blank, not broken: 30 rounds of flush, join and send."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as other:
        for number in range(30):
            theirs = await other.call("join", "group")
            own = await layer.new_channel()
            await layer.group_add("group", own)
            await layer.group_send("group", numbered(number))
            assert await receive(layer, own) == numbered(number)
            assert await other.call("receive", theirs) == numbered(number)
            await layer.flush()


async def test_a_receiver_waits_through_a_flush(shards: list[RedisServer]) -> None:
    """Flushing takes messages and memberships, never the receivers."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        receivers = [asyncio.create_task(layer.receive(name)) for name in (channel, "orders")]
        await asyncio.sleep(0)
        await layer.flush()
        await layer.send(channel, numbered(1))
        await layer.send("orders", numbered(2))
        assert await asyncio.gather(*receivers) == [numbered(1), numbered(2)]


async def test_a_process_that_does_not_answer_delays_flush_by_its_deadline_only(
    shards: list[RedisServer],
) -> None:
    """flush() returns when all have confirmed or the deadline has passed."""
    config = shared_config(shards, timeout=1.0)
    async with open_layer(**config) as layer, Worker(config) as other:
        await other.call("join", "group")
        other.kill()
        begin = time.monotonic()
        await layer.flush()
        assert time.monotonic() - begin < 10
