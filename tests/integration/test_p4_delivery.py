"""P4: everything acknowledged is delivered; every loss has a reason and is counted under it."""

import asyncio

import pytest

from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    numbers_before_end,
    open_layer,
    receive_numbers,
    shared_config,
)
from tests.support.waiting import eventually_async
from tests.support.workers import Worker, workers


async def test_without_faults_everything_arrives_once(shards: list[RedisServer]) -> None:
    """Three ways, four processes, 3 x 2,000 messages: all delivered, no loss counted."""
    config = shared_config(shards, capacity=5_000)
    async with open_layer(**config) as layer, workers(3, config) as others:
        channel = await layer.new_channel()
        groups = await names_on_all_shards(layer, "group")
        for group in groups:
            await layer.group_add(group, channel)
        outcomes = await asyncio.gather(
            others[0].call("send_numbers", channel, 0, 2000),
            others[1].call("send_numbers", "orders", 2000, 2000),
            *(
                others[2].call("group_send_numbers", group, 4000 + i * 700, 700)
                for i, group in enumerate(groups)
            ),
            layer.locate("orders"),
        )
        assert {result for part in outcomes[:-1] for result in part} == {"ok"}
        direct_and_group = await receive_numbers(layer, channel, 4100)
        assert sorted(direct_and_group) == [*range(2000), *range(4000, 6100)]
        assert await receive_numbers(layer, "orders", 2000) == list(range(2000, 4000))
        assert layer.stats()["lost"] == {}


async def test_direct_messages_from_other_processes_all_arrive(shards: list[RedisServer]) -> None:
    """On three shards every process reaches every channel of every other one."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, workers(3, config) as others:
        channels = [await other.call("layer", "new_channel") for other in others for _ in range(5)]
        receivers = [other for other in others for _ in range(5)]
        for number, channel in enumerate(channels):
            await layer.send(channel, numbered(number))
        for number, (channel, receiver) in enumerate(zip(channels, receivers, strict=True)):
            assert await receiver.call("receive", channel) == numbered(number)


async def test_a_stopped_process_gets_what_came_meanwhile(shards: list[RedisServer]) -> None:
    """SIGSTOP for longer than any deadline: what its shards gave away already waits for it."""
    config = shared_config(shards, timeout=0.2)
    async with open_layer(**config) as layer, Worker(config) as other:
        channel, member = [await other.call("layer", "new_channel") for _ in range(2)]
        await other.call("layer", "group_add", "group", member)
        sources = (channel, member, *await names_on_all_shards(layer, "orders"))
        for _ in range(3):  # where it is stopped is chance
            receiving = [asyncio.create_task(other.call("receive", name)) for name in sources]
            await asyncio.sleep(0.5)
            other.stop()
            try:
                for number, name in enumerate(sources):
                    group = name == member
                    await (layer.group_send if group else layer.send)(
                        "group" if group else name, numbered(number)
                    )
                await asyncio.sleep(1.7)
            finally:
                other.go_on()
            got = await asyncio.gather(*receiving)
            assert got == [numbered(number) for number in range(len(sources))]


async def test_what_a_full_member_misses_is_counted(shards: list[RedisServer]) -> None:
    """Ten group messages to a member that holds three: seven are lost as full."""
    async with open_layer(shards, capacity=3) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for number in range(10):
            await layer.group_send("group", numbered(number))
        await eventually_async(lambda: layer.stats()["lost"] == {"full": 7})
        assert await receive_numbers(layer, channel, 3) == [0, 1, 2]


@pytest.mark.parametrize("normal", [True, False])
async def test_what_expires_unread_is_counted(shards: list[RedisServer], normal: bool) -> None:
    """Three messages that nobody read in time are lost as expired."""
    async with open_layer(shards, expiry=0.5) as layer:
        channel = "orders" if normal else await layer.new_channel()
        for number in range(3):
            await layer.send(channel, numbered(number))
        await asyncio.sleep(0.7)
        await layer.send(channel, numbered(-1, end=True))
        assert await numbers_before_end(layer, channel) == []
        await eventually_async(lambda: layer.stats()["lost"] == {"expired": 3})


async def test_messages_of_strangers_are_dropped_and_counted(shards: list[RedisServer]) -> None:
    """With another key nothing can be read: it is counted, and no receiver hears of it."""
    config = shared_config(shards)
    async with (
        open_layer(**config, symmetric_encryption_keys=["ours", "old"]) as layer,
        open_layer(**config, symmetric_encryption_keys=["old"]) as older,
        open_layer(**config) as plain,
    ):
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await plain.send(channel, numbered(1))
        await plain.group_send("group", numbered(2))
        await plain.send("orders", numbered(3))
        await older.send(channel, numbered(4))
        await older.group_send("group", numbered(5))
        await layer.send(channel, numbered(6))
        assert sorted(await receive_numbers(layer, channel, 3)) == [4, 5, 6]
        await layer.send("orders", numbered(7))
        assert await receive_numbers(layer, "orders", 1) == [7]
        assert layer.stats()["lost"] == {"undecipherable": 3}


async def test_large_messages_arrive(shards: list[RedisServer]) -> None:
    """A megabyte of JSON, in all three ways, next to small ones."""
    text = "x" * 1_048_000
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as other:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for number in range(5):
            await other.call("layer", "send", channel, numbered(3 * number, text=text))
            await other.call("layer", "group_send", "group", numbered(3 * number + 1, text=text))
            await layer.send("orders", numbered(3 * number + 2, text=text))
            for source in (channel, channel, "orders"):
                async with asyncio.timeout(20):
                    assert (await layer.receive(source))["text"] == text
