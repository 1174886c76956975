"""Unconfirmed writes: nobody waits, nothing is lost in silence, order holds, all is bounded."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync

from cluster_layer import ClusterChannelLayer, Gap
from cluster_layer import unconfirmed as module
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import (
    ChannelFull,
    DeliveryUnknown,
    InvalidMessage,
    InvalidName,
    ShardUnavailable,
)
from cluster_layer.unconfirmed import MAX_ON_THEIR_WAY
from tests.support.changes import changes_of
from tests.support.layers import (
    DEADLINE_S,
    HasUrl,
    names_on_all_shards,
    numbered,
    open_layer,
    receive_numbers,
    topology_store,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology.errors import ClusterError
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology


class Gaps:
    """What the hook was told."""

    def __init__(self) -> None:
        self.all: list[Gap] = []

    def __call__(self, gap: Gap) -> None:
        self.all.append(gap)

    @property
    def errors(self) -> list[tuple[str, type[ClusterError]]]:
        kinds = (ChannelFull, DeliveryUnknown, ShardUnavailable)
        return [
            (gap.name, kind) for gap in self.all for kind in kinds if isinstance(gap.error, kind)
        ]


@pytest.fixture
def gaps() -> Gaps:
    return Gaps()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@asynccontextmanager
async def pair(
    near: HasUrl, far: RedisServer, gaps: Gaps, **config: object
) -> AsyncIterator[tuple[ClusterChannelLayer, ClusterChannelLayer]]:
    """A sender that confirms nothing, through `near`, and a receiver of the same messages."""
    prefix = unique_prefix()
    async with (
        open_layer([near], prefix=prefix, confirm=False, on_gap=gaps, **config) as sender,
        open_layer([far], prefix=prefix, **config) as receiver,
    ):
        await sender.open()
        yield sender, receiver


async def test_messages_arrive_in_the_order_of_their_sends(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """More than may be on their way at once, to two channels and a normal one; nothing is lost."""
    async with pair(redis_server, redis_server, gaps, capacity=10_000) as (sender, receiver):
        channels = [await receiver.new_channel() for _ in range(2)]
        count = 2 * MAX_ON_THEIR_WAY
        for number in range(count):
            await sender.send(channels[number % 2], numbered(number))
            if number % 10 == 0:
                await sender.send("normal", numbered(number))
        await sender.wait_for_confirms()
        for parity, channel in enumerate(channels):
            expected = list(range(parity, count, 2))
            assert await receive_numbers(receiver, channel, count // 2) == expected
        normal = await receive_numbers(receiver, "normal", count // 10)
        assert normal == list(range(0, count, 10))
        assert sender.stats()["unconfirmed"] == {"full": 0, "unavailable": 0, "unknown": 0}
        assert gaps.all == []


@pytest.mark.parametrize(("confirm", "of_call"), [(False, None), (True, False)])
async def test_a_send_returns_before_the_shard_answers(
    proxy: TcpProxy, confirm: bool, of_call: bool | None
) -> None:
    """By the CONFIG, or by the call's own `confirm`, which wins."""
    async with open_layer([proxy], timeout=20.0, confirm=confirm) as layer:
        await layer.open()
        await layer.send("normal", numbered(0), confirm=True)
        proxy.delay(0.5, "replies")
        await layer.send("normal", numbered(1), confirm=of_call)
        assert sent(layer) == 1
        await layer.send("normal", numbered(2), confirm=True)
        assert sent(layer) == 3
        await layer.send("normal", numbered(3), confirm=of_call)
        await layer.wait_for_confirms()
        assert sent(layer) == 4


def sent(layer: ClusterChannelLayer) -> int:
    """Messages that the shard has confirmed."""
    (counted,) = layer.stats()["shards"].values()
    count: int = counted["sent"]
    return count


async def test_a_mistake_is_still_raised(redis_server: RedisServer, gaps: Gaps) -> None:
    """What is wrong with the message or the name is known before anything is queued."""
    async with pair(redis_server, redis_server, gaps) as (sender, _):
        with pytest.raises(InvalidName):
            await sender.send("no channel", numbered(1))
        with pytest.raises(InvalidMessage):
            await sender.group_send("group", {"type": object()})
        assert gaps.all == []


async def test_who_waits_for_confirms_does_not_wait_for_what_others_send_meanwhile(
    proxy: TcpProxy, redis_server: RedisServer, gaps: Gaps
) -> None:
    """P8: it waits for the messages until now, in a process in which some are always on their way.

    Several may wait at once, and each message is waited for by all who asked after it.
    """
    async with pair(proxy, redis_server, gaps, capacity=100_000) as (sender, _):
        await sender.open()
        await sender.send("p.1!a", numbered(0))
        await sender.wait_for_confirms()
        proxy.delay(0.02)
        before = sent(sender)

        async def send_on() -> None:
            while True:
                await sender.send("p.1!a", numbered(1))
                await asyncio.sleep(random.uniform(0, 0.01))

        others = [asyncio.create_task(send_on()) for _ in range(20)]
        await eventually_async(lambda: sent(sender) > before)
        try:
            async with asyncio.timeout(DEADLINE_S):
                for number in range(3):
                    already = sent(sender)
                    for _ in range(50):
                        await sender.send("p.2!a", numbered(number))
                    await asyncio.gather(*(sender.wait_for_confirms() for _ in range(2)))
                    assert sent(sender) >= already + 50
        finally:
            for other in others:
                other.cancel()
            await asyncio.wait(others)


@pytest.mark.parametrize("channel", ["p.1!a", "normal"])
async def test_a_full_channel_is_told_to_the_hook(
    redis_server: RedisServer, gaps: Gaps, channel: str
) -> None:
    """The messages beyond its capacity were provably not sent; each is counted and told."""
    async with pair(redis_server, redis_server, gaps, capacity=3) as (sender, _):
        for number in range(5):
            await sender.send(channel, numbered(number))
        await sender.wait_for_confirms()
        assert gaps.errors == [(channel, ChannelFull)] * 2
        assert all(gap.error is not None and gap.error.definite for gap in gaps.all)
        assert sender.stats()["unconfirmed"] == {"full": 2, "unavailable": 0, "unknown": 0}
        assert sent(sender) == 3


async def test_a_dead_shard_is_told_to_the_hook(gaps: Gaps) -> None:
    """A send returns all the same; what was not sent is definite."""
    with RedisServer() as server:
        async with pair(server, server, gaps) as (sender, receiver):
            channel = await receiver.new_channel()
            await sender.send(channel, numbered(0))
            await sender.wait_for_confirms()
            server.kill()
            await eventually_async(
                lambda: not any(shard["connected"] for shard in sender.stats()["shards"].values())
            )
            await sender.send(channel, numbered(1))
            await sender.group_send("group", numbered(2))
            assert gaps.errors == [(channel, ShardUnavailable), ("group", ShardUnavailable)]
            assert sender.stats()["unconfirmed"]["unavailable"] == 2
            server.start()


async def test_a_lost_answer_is_told_as_unknown_and_nothing_is_sent_twice(
    proxy: TcpProxy, redis_server: RedisServer, gaps: Gaps
) -> None:
    """The connection is cut with many on their way; what follows comes behind them."""
    async with pair(proxy, redis_server, gaps, capacity=1000) as (sender, receiver):
        channel = await receiver.new_channel()
        await sender.send(channel, numbered(0))
        await sender.wait_for_confirms()
        proxy.lose_next_reply(b"EVALSHA")
        for number in range(1, 21):
            await sender.send(channel, numbered(number))
        await eventually_async(lambda: gaps.all)
        for number in range(21, 30):
            await sender.send(channel, numbered(number))
        await sender.wait_for_confirms()
        unknown = len(gaps.all)
        assert gaps.errors == [(channel, DeliveryUnknown)] * unknown
        assert unknown >= 1
        assert not any(gap.error is None or gap.error.definite for gap in gaps.all)
        assert sender.stats()["unconfirmed"]["unknown"] == unknown
        await receiver.send(channel, numbered(-1))
        received: list[int] = []
        while not received or received[-1] != -1:
            received += await receive_numbers(receiver, channel, 1)
        assert received[:-1] == sorted(set(received[:-1]))
        assert set(range(21, 30)) <= set(received)


async def test_order_holds_across_verbs_and_shards(shards: list[RedisServer], gaps: Gaps) -> None:
    """A write to another lane waits for the answers that it has to name; confirmed ones as well."""
    prefix = unique_prefix()
    config = {"prefix": prefix, "capacity": 1000}
    async with (
        open_layer(shards, confirm=False, on_gap=gaps, **config) as sender,
        open_layer(shards, **config) as receiver,
    ):
        await sender.open()
        channel = await receiver.new_channel()
        groups = await names_on_all_shards(receiver, "group")
        for group in groups:
            await receiver.group_add(group, channel)
        for number in range(300):
            confirm = True if number % 7 == 0 else None
            if number % 5 < 2:
                await sender.send(channel, numbered(number), confirm=confirm)
            else:
                group = groups[number // 11 % len(groups)]
                await sender.group_send(group, numbered(number), confirm=confirm)
        assert await receive_numbers(receiver, channel, 300) == list(range(300))
        assert gaps.all == []


async def test_nothing_is_lost_or_late_while_the_topology_changes(
    shards: list[RedisServer], gaps: Gaps
) -> None:
    """What a shard refuses because its slots have moved is written again, in its order."""
    ids = [Shard(f"s{number}", server.url) for number, server in enumerate(shards)]
    url = topology_store(initial_topology(ids, cluster=new_cluster_id()))
    config: dict[str, Any] = {"topology": url, "prefix": unique_prefix(), "capacity": 100_000}
    async with (
        open_layer(**config, confirm=False, on_gap=gaps) as sender,
        open_layer(**config) as receiver,
        changes_of(url) as changes,
    ):
        await sender.open()
        channel = await receiver.new_channel()
        groups = await names_on_all_shards(receiver, "group")
        for group in groups:
            await receiver.group_add(group, channel)
        over = asyncio.Event()

        async def write(task: int) -> int:
            choice, number = random.Random(task), 0
            while not over.is_set():
                message = numbered(task * 1_000_000 + number)
                if choice.random() < 0.1:
                    await sender.send(channel, message)
                else:
                    await sender.group_send(choice.choice(groups), message)
                number += 1
                await asyncio.sleep(0)
            return number

        writers = [asyncio.create_task(write(task)) for task in range(3)]
        for wanted in (ids[:2], ids, ids[1:], ids):
            await changes.to(wanted)
        over.set()
        counts = [await writer for writer in writers]
        await sender.wait_for_confirms()
        arrived = await receive_numbers(receiver, channel, sum(counts))
        for task, count in enumerate(counts):
            first = task * 1_000_000
            expected = list(range(first, first + count))
            assert [number for number in arrived if number // 1_000_000 == task] == expected
        assert gaps.all == []


async def test_tasks_that_share_a_past_do_not_wait_for_each_other_for_ever(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """A child that writes elsewhere waits for what it inherited, though its sibling goes on."""
    async with pair(redis_server, redis_server, gaps, capacity=100_000) as (sender, receiver):
        channel = await receiver.new_channel()
        await receiver.group_add("group", channel)
        going_on = True

        async def sibling() -> None:
            while going_on:
                await sender.send("p.1!a", numbered(0))
                await asyncio.sleep(0)

        await sender.send("p.1!a", numbered(0))  # on its way when the task begins
        task = asyncio.create_task(sibling())
        await asyncio.sleep(0)
        await sender.group_send("group", numbered(1))
        assert await receive_numbers(receiver, channel, 1) == [1]
        going_on = False
        await task
        assert gaps.all == []


async def test_a_member_that_another_process_added_is_reached_in_order(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """Senders send to it one by one; what its writer sends next comes after that."""
    async with pair(redis_server, redis_server, gaps, capacity=1000) as (sender, receiver):
        channel = await receiver.new_channel()
        await sender.group_add("group", channel)  # before its process has heard of anything
        for number in range(0, 100, 2):
            await sender.group_send("group", numbered(number))
            await sender.send(channel, numbered(number + 1))
        assert await receive_numbers(receiver, channel, 100) == list(range(100))


async def test_so_many_are_on_their_way_and_no_more(
    proxy: TcpProxy, redis_server: RedisServer, gaps: Gaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one waits for room, no longer than the timeout, and is then told as not sent."""
    monkeypatch.setattr(module, "MAX_ON_THEIR_WAY", 20)
    async with pair(proxy, redis_server, gaps, timeout=0.5, capacity=1000) as (sender, _):
        await sender.send("p.1!a", numbered(0), confirm=True)
        proxy.blackhole("replies")
        for number in range(1, 21):
            await sender.send("p.1!a", numbered(number))
        waiting = asyncio.ensure_future(sender.send("p.1!a", numbered(21)))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with asyncio.timeout(20):
            await waiting
            await sender.wait_for_confirms()
        kinds = [kind for _, kind in gaps.errors]
        assert kinds.count(DeliveryUnknown) == 20
        assert kinds.count(ShardUnavailable) == 1
        proxy.heal()


async def test_scripts_that_were_flushed_are_loaded_again(
    redis_server: RedisServer, gaps: Gaps
) -> None:
    """What was refused is told, not tried again: others of its task may be behind it by then."""
    async with pair(redis_server, redis_server, gaps) as (sender, receiver):
        channel = await receiver.new_channel()
        await sender.send(channel, numbered(0))
        await sender.wait_for_confirms()
        with redis.Redis.from_url(redis_server.url, protocol=2) as client:
            client.script_flush()
        await sender.send(channel, numbered(1))
        await sender.wait_for_confirms()
        assert gaps.errors == [(channel, ShardUnavailable)]
        await sender.send(channel, numbered(2), confirm=True)
        assert await receive_numbers(receiver, channel, 2) == [0, 2]


async def test_a_hook_that_fails_disturbs_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged."""

    def fails(_gap: Gap) -> None:
        raise RuntimeError("of the hook")

    config = {"capacity": 1, "confirm": False, "on_gap": fails}
    async with open_layer([redis_server], **config) as layer:
        with caplog.at_level(logging.ERROR, "cluster_layer"):
            for number in range(3):
                await layer.send("normal", numbered(number))
            await layer.wait_for_confirms()
        assert caplog.text.count("CONFIG on_gap failed") == 1  # the second one is only counted
        assert layer.stats()["unconfirmed"]["full"] == 2
        assert await receive_numbers(layer, "normal", 1) == [0]


async def test_closing_waits_for_what_is_on_its_way(redis_server: RedisServer, gaps: Gaps) -> None:
    """A program that closes its layer has sent what it sent."""
    prefix = unique_prefix()
    async with open_layer([redis_server], prefix=prefix, capacity=1000) as receiver:
        channel = await receiver.new_channel()
        async with open_layer([redis_server], prefix=prefix, capacity=1000) as sender:
            await sender.open()
            for number in range(100):
                await sender.send(channel, numbered(number), confirm=False)
        assert await receive_numbers(receiver, channel, 100) == list(range(100))


def test_calls_without_a_loop_go_through_the_background(redis_server: RedisServer) -> None:
    """As confirmed ones do: in order, and known to be written after wait_for_confirms."""
    layer = ClusterChannelLayer(
        hosts=[redis_server.url], prefix=unique_prefix(), confirm=False, capacity=1000
    )
    for number in range(50):
        async_to_sync(layer.send)("normal", numbered(number))
    async_to_sync(layer.wait_for_confirms)()

    async def receive() -> list[int]:
        numbers = await receive_numbers(layer, "normal", 50)
        await layer.close()
        return numbers

    assert asyncio.run(receive()) == list(range(50))
