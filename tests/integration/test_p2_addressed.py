"""P2: only what was sent, only to whom it was addressed."""

import asyncio

import pytest

from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ChannelFull, MessageTooLarge, ShardUnavailable
from tests.support.layers import (
    name_on,
    names_on_all_shards,
    numbered,
    numbers_before_end,
    only_end_comes,
    open_layer,
    outcome_of,
    receive,
    receive_numbers,
    shared_config,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from tests.support.workers import RemoteError, Worker


async def test_nothing_reaches_a_member_that_has_left(shards: list[RedisServer]) -> None:
    """A message that is sent after the leave was acknowledged does not arrive, in 300 rounds."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        groups = await names_on_all_shards(layer, "group")
        for number in range(300):
            group = groups[number % 3]
            await layer.group_add(group, channel)
            await layer.group_send(group, numbered(number))
            await layer.group_discard(group, channel)
            await layer.group_send(group, numbered(-2))
            assert await receive(layer, channel) == numbered(number)
        assert await only_end_comes(layer, channel)


async def test_nothing_reaches_a_member_that_another_process_removed(
    shards: list[RedisServer],
) -> None:
    """A moderator's kick: after it is acknowledged nobody's message reaches the kicked."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as moderator:
        channel = await layer.new_channel()
        for number, group in enumerate(20 * await names_on_all_shards(layer, "group")):
            await layer.group_add(group, channel)
            await moderator.call("layer", "group_send", group, numbered(number))
            await moderator.call("layer", "group_discard", group, channel)
            await moderator.call("layer", "group_send", group, numbered(-2))
            await layer.group_send(group, numbered(-3))
            assert await receive(layer, channel) == numbered(number)
            assert await only_end_comes(layer, channel)


async def test_a_member_can_come_back_after_a_kick(shards: list[RedisServer]) -> None:
    """A kick ends the membership that was, not the next one."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, open_layer(**config) as moderator:
        channel = await layer.new_channel()
        for number in range(50):
            await layer.group_add("group", channel)
            await moderator.group_send("group", numbered(number))
            await moderator.group_discard("group", channel)
        await layer.group_add("group", channel)
        await moderator.group_send("group", numbered(50))
        assert await receive_numbers(layer, channel, 51) == list(range(51))


async def test_a_message_that_was_refused_never_arrives(shards: list[RedisServer]) -> None:
    """ChannelFull and MessageTooLarge are definite: waiting does not bring the message."""
    async with open_layer(shards, capacity=3, message_size_limit=1_000_000) as layer:
        for channel in (await layer.new_channel(), "orders"):
            for number in range(3):
                await layer.send(channel, numbered(number))
            for number in range(3, 6):
                with pytest.raises(ChannelFull) as full:
                    await layer.send(channel, numbered(number))
                assert full.value.definite
                assert (full.value.depth, full.value.limit) == (3, 3)
            with pytest.raises(MessageTooLarge) as large:
                await layer.send(channel, numbered(6, data="x" * 1_000_000))
            assert large.value.definite
            assert await receive_numbers(layer, channel, 3) == [0, 1, 2]
            assert await only_end_comes(layer, channel)


async def test_a_message_that_no_shard_was_asked_to_take_never_arrives(
    redis_server: RedisServer,
) -> None:
    """ShardUnavailable is definite, and the layer keeps nothing to send it later."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        async with open_layer([proxy], timeout=0.5) as layer:
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            await layer.send(channel, numbered(0))
            proxy.refuse()
            proxy.cut()
            # The first may meet the connection before its cut is noticed: that is unknown.
            await outcome_of(layer.send(channel, numbered(1)))
            for number in range(2, 6):
                with pytest.raises(ShardUnavailable):
                    await layer.send(channel, numbered(number))
                with pytest.raises(ShardUnavailable):
                    await layer.group_send("group", numbered(number))
            proxy.heal()

            async def end_is_sent() -> bool:
                return await outcome_of(layer.send(channel, numbered(-1, end=True))) == "ok"

            await eventually_async(end_is_sent)
            arrived = await numbers_before_end(layer, channel)
            assert arrived[0] == 0
            assert set(arrived) <= {0, 1}


@pytest.mark.parametrize("own_first", [True, False])
async def test_a_member_added_by_two_processes_gets_one_copy(
    shards: list[RedisServer], own_first: bool
) -> None:
    """The channel's own process and another one both add it; whoever sends, it gets one copy."""
    config = shared_config(shards)
    async with open_layer(**config) as own, open_layer(**config) as other:
        channel = await own.new_channel()
        for group in await names_on_all_shards(own, "group"):
            for layer in (own, other) if own_first else (other, own):
                await layer.group_add(group, channel)
            for number in range(20):
                await (own, other)[number % 2].group_send(group, numbered(number))
            assert sorted(await receive_numbers(own, channel, 20)) == list(range(20))
            assert await only_end_comes(own, channel)
            await other.group_discard(group, channel)
            await own.group_send(group, numbered(-2))
            await other.group_send(group, numbered(-3))
            assert await only_end_comes(own, channel)


async def test_a_member_that_only_another_process_added_gets_one_copy(
    shards: list[RedisServer],
) -> None:
    """A channel of another process, and a normal channel, are members like any other."""
    config = shared_config(shards)
    async with open_layer(**config) as own, open_layer(**config) as other:
        channel = await own.new_channel()
        await other.group_add("group", channel)
        await other.group_add("group", "orders")
        for number in range(30):
            await (own, other)[number % 2].group_send("group", numbered(number))
        assert sorted(await receive_numbers(own, channel, 30)) == list(range(30))
        assert sorted(await receive_numbers(own, "orders", 30)) == list(range(30))
        await own.group_discard("group", channel)
        await own.group_discard("group", "orders")
        await other.group_send("group", numbered(-2))
        assert await only_end_comes(own, channel)
        assert await only_end_comes(other, "orders")


@pytest.mark.parametrize("own_leaves", [True, False])
async def test_a_member_that_another_process_added_and_removed_stays_out(
    shards: list[RedisServer], own_leaves: bool
) -> None:
    """Its own process hears of both late, and must not bring the membership back."""
    config = shared_config(shards, capacity=1000)
    async with open_layer(**config) as own, open_layer(**config) as other:
        channel = await own.new_channel()
        assert await only_end_comes(own, channel)
        leaver = own if own_leaves else other
        for group in 30 * await names_on_all_shards(own, "group"):
            await other.group_add(group, channel)
            await leaver.group_discard(group, channel)
            await other.group_send(group, numbered(-2))
        # What its process was told by the others has arrived with this.
        await other.send(channel, numbered(-1, end=True))
        assert await numbers_before_end(own, channel) == []
        for group in 10 * await names_on_all_shards(own, "group"):
            await own.group_send(group, numbered(-3))
        assert await only_end_comes(own, channel)


async def test_names_that_look_alike_are_different(shards: list[RedisServer]) -> None:
    """A group, a channel of the same name and longer names hear nothing of each other."""
    async with open_layer(shards) as layer:
        shard = await layer.locate("chat")
        names = ["chat", "chat.1", await name_on(layer, shard, "chat"), "Chat"]
        members = {name: await layer.new_channel("chat") for name in names}
        for name, channel in members.items():
            await layer.group_add(name, channel)
        for number, name in enumerate(names):
            await layer.group_send(name, numbered(number))
            await layer.send(name, numbered(number + 100))
        for number, (name, channel) in enumerate(members.items()):
            assert await receive(layer, channel) == numbered(number)
            assert await only_end_comes(layer, channel)
            assert await receive(layer, name) == numbered(number + 100)


async def test_a_channel_of_another_process_cannot_be_received(shards: list[RedisServer]) -> None:
    """Two readers of one inbox could not both be served once."""
    config = shared_config(shards)
    async with open_layer(**config) as layer, Worker(config) as other:
        channel = await layer.new_channel()
        with pytest.raises(RemoteError) as refused:
            await other.call("receive", channel)
        assert refused.value.kind == "NotOurChannel"
        await other.call("layer", "send", channel, numbered(1))
        assert await receive(layer, channel) == numbered(1)


async def test_two_receivers_of_one_channel_share_its_messages(shards: list[RedisServer]) -> None:
    """Also of a process-specific channel each message has one receiver."""
    async with open_layer(shards, capacity=1000) as layer:
        channel = await layer.new_channel()
        readers = [asyncio.create_task(receive_numbers(layer, channel, 50)) for _ in range(2)]
        for number in range(100):
            await layer.send(channel, numbered(number))
        shares = await asyncio.gather(*readers)
        assert sorted(shares[0] + shares[1]) == list(range(100))
