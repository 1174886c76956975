"""P3: what one task writes to a process-specific channel arrives in the order of its writes."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from cluster_layer import ClusterChannelLayer, node
from cluster_layer.embedded import RedisServer
from cluster_layer.names import inbox_name
from tests.support.layers import (
    name_on,
    names_on_all_shards,
    new_channel_on,
    numbered,
    numbers_before_end,
    open_layer,
    receive,
    receive_numbers,
    shared_config,
    topology_file,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology import transitions
from topology.stores import open_store

Delays = tuple[float, float, float]


@pytest.fixture
def proxies(shards: list[RedisServer]) -> Iterator[list[TcpProxy]]:
    with ExitStack() as stack:
        yield [stack.enter_context(TcpProxy("127.0.0.1", shard.port)) for shard in shards]


async def _write_mixed(
    layer: ClusterChannelLayer, channel: str, groups: list[str], numbers: range, seed: int
) -> None:
    """Numbers by send and group_send at random, as one task."""
    choice = random.Random(seed)
    for number in numbers:
        if choice.random() < 0.4:
            await layer.send(channel, numbered(number))
        else:
            await layer.group_send(choice.choice(groups), numbered(number))


@pytest.mark.parametrize("confirm", [True, False], ids=["confirmed", "unconfirmed"])
@pytest.mark.parametrize("delays", [(0.0, 0.0, 0.0), (0.0, 0.03, 0.06), (0.06, 0.0, 0.03)])
async def test_mixed_verbs_over_several_shards_arrive_in_order(
    shards: list[RedisServer],
    proxies: list[TcpProxy],
    tmp_path: Path,
    delays: Delays,
    confirm: bool,
) -> None:
    """The reader hears the shards with different delays, the writer has none: order holds."""
    ids = ["one", "two", "three"]
    prefix = unique_prefix()
    near = topology_file(tmp_path / "near.json", dict(zip(ids, shards, strict=True)))
    far = topology_file(tmp_path / "far.json", dict(zip(ids, proxies, strict=True)))
    async with (
        open_layer(topology=near, prefix=prefix, capacity=1000, confirm=confirm) as writer,
        open_layer(topology=far, prefix=prefix, capacity=1000) as reader,
    ):
        await writer.open()
        channel = await reader.new_channel()
        groups = await names_on_all_shards(reader, "group")
        for group in groups:
            await reader.group_add(group, channel)
        for proxy, delay_s in zip(proxies, delays, strict=True):
            proxy.delay(delay_s, "replies")
        await _write_mixed(writer, channel, groups, range(300), seed=1)
        assert await receive_numbers(reader, channel, 300) == list(range(300))


async def test_each_of_many_writers_keeps_its_order(shards: list[RedisServer]) -> None:
    """Ten tasks in two processes' layers write at once; every task's messages are in order."""
    config = shared_config(shards)
    async with (
        open_layer(**config, capacity=5000) as first,
        open_layer(**config, capacity=5000) as second,
    ):
        channel = await first.new_channel()
        groups = await names_on_all_shards(first, "group")
        for group in groups:
            await first.group_add(group, channel)
        async with asyncio.TaskGroup() as tasks:
            for task in range(10):
                numbers = range(task * 1000, task * 1000 + 100)
                layer = (first, second)[task % 2]
                tasks.create_task(_write_mixed(layer, channel, groups, numbers, seed=task))
        arrived = await receive_numbers(first, channel, 1000)
        for task in range(10):
            of_task = [n for n in arrived if n // 1000 == task]
            assert of_task == list(range(task * 1000, task * 1000 + 100))


async def test_what_a_task_wrote_through_another_layer_holds_nothing_up(
    shards: list[RedisServer],
) -> None:
    """Positions of one prefix mean nothing under another, and marks of them would wait in circles.

    The writers inherit the trail of whoever started them, as they do below async_to_sync.
    """
    async with open_layer(shards, capacity=1000) as other:
        channel = await other.new_channel()
        groups = await names_on_all_shards(other, "group")
        await _write_mixed(other, channel, groups, range(300), seed=0)
        async with open_layer(shards, capacity=1000) as layer:
            channel = await layer.new_channel()
            for group in groups:
                await layer.group_add(group, channel)
            async with asyncio.TaskGroup() as tasks:
                for task in range(6):
                    numbers = range(task * 100, task * 100 + 100)
                    tasks.create_task(_write_mixed(layer, channel, groups, numbers, seed=task))
            arrived = await receive_numbers(layer, channel, 600)
            for task in range(6):
                of_task = [n for n in arrived if n // 100 == task]
                assert of_task == list(range(task * 100, task * 100 + 100))


async def test_order_is_kept_across_helper_coroutines(shards: list[RedisServer]) -> None:
    """Awaiting a coroutine or a child task is still the same task's order, if it is awaited."""
    async with open_layer(shards, capacity=1000) as layer:
        channel = await layer.new_channel()
        groups = await names_on_all_shards(layer, "group")
        for group in groups:
            await layer.group_add(group, channel)

        async def through_helper(number: int) -> None:
            await layer.group_send(groups[number % 3], numbered(number))

        for number in range(200):
            if number % 2:
                await layer.send(channel, numbered(number))
            else:
                await through_helper(number)
        assert await receive_numbers(layer, channel, 200) == list(range(200))


async def test_joining_and_leaving_are_in_order_with_the_messages(
    shards: list[RedisServer],
) -> None:
    """A member gets exactly what is sent between its join and its leave, by another process too."""
    config = shared_config(shards, capacity=1000)
    async with open_layer(**config) as own, open_layer(**config) as other:
        channel = await own.new_channel()
        for number in range(100):
            await other.group_send("group", numbered(-2))
            await own.group_add("group", channel)
            await other.group_send("group", numbered(number))
            await own.group_discard("group", channel)
            await other.group_send("group", numbered(-3))
        await other.send(channel, numbered(-1, end=True))
        assert await numbers_before_end(own, channel) == list(range(100))


async def test_an_inbox_is_in_order_over_all_its_channels(shards: list[RedisServer]) -> None:
    """A reader of the part up to ! gets the messages of all its channels in their order."""
    async with open_layer(shards, capacity=1000) as layer:
        channels = [await layer.new_channel() for _ in range(5)]
        inbox = channels[0].partition("!")[0] + "!"
        for number in range(200):
            await layer.send(channels[number % 5], numbered(number))
        assert await receive_numbers(layer, inbox, 200) == list(range(200))


async def test_a_shard_that_comes_to_be_an_inboxs_home_is_read_before_what_follows(
    shards: list[RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader hears of the new home late, and reads other inboxes of its own there all along.

    How far those have come says nothing of the one that it does not read there yet.
    """
    monkeypatch.setattr(node, "LEARN_WITHIN_S", 0.5)
    ids = ["one", "two", "three"]
    prefix = unique_prefix()
    stores = [
        topology_file(tmp_path / name, dict(zip(ids, shards, strict=True)))
        for name in ("writer.json", "reader.json")
    ]
    async with (
        open_layer(topology=stores[0], prefix=prefix) as writer,
        open_layer(topology=stores[1], prefix=prefix) as reader,
    ):
        await writer.open()
        with closing(open_store(stores[0])) as store:
            before = store.read()
            assert before is not None
            after = transitions.rehome(before, ["three"], "a test")
            for number in count():
                channel = await reader.new_channel(f"moved{number}")
                homes = [at.shard_of(inbox_name(channel)).id for at in (before, after)]
                if homes == ["three", "one"]:
                    break
            group = await name_on(reader, "two")
            await reader.group_add(group, channel)
            other = await new_channel_on(reader, "one")
            await writer.send(other, numbered(0))
            await receive(reader, other)
            store.write(after, expected_epoch=before.epoch)
        await eventually_async(lambda: writer.stats()["epoch"] == after.epoch)
        await writer.send(channel, numbered(0))
        await writer.send(other, numbered(1))
        await writer.group_send(group, numbered(1))
        assert await receive_numbers(reader, channel, 2) == [0, 1]
