"""What channels_redis's core layer is tested for, told anew.

The tests bear the names of theirs, so that the two lists can be compared; docs/guarantees.md names
those of theirs that have no counterpart here.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from cluster_layer import ClusterChannelLayer
from tests.support.layers import (
    DEADLINE_S,
    numbered,
    numbers_before_end,
    only_end_comes,
    receive,
    receive_numbers,
    unique_prefix,
)
from tests.support.waiting import eventually_async

MakeLayer = Callable[..., Awaitable[ClusterChannelLayer]]


async def test_send_receive(make_layer: MakeLayer) -> None:
    """A message to a normal channel is received there, unchanged."""
    layer = await make_layer()
    await layer.send("test-channel-1", {"type": "test.message", "text": "Ahoy-hoy!"})
    assert await receive(layer, "test-channel-1") == {"type": "test.message", "text": "Ahoy-hoy!"}


def test_double_receive(way: dict[str, Any]) -> None:
    """Channels made and sent to in short-lived loops are received in other ones."""
    layer = ClusterChannelLayer(**way, prefix=unique_prefix(), capacity=3)
    first = async_to_sync(layer.new_channel)()
    second = async_to_sync(layer.new_channel)()
    async_to_sync(layer.send)(first, numbered(1))
    async_to_sync(layer.send)(second, numbered(2))
    assert async_to_sync(receive)(layer, second) == numbered(2)
    assert async_to_sync(receive)(layer, first) == numbered(1)
    async_to_sync(layer.flush)()
    async_to_sync(layer.close)()


async def test_send_capacity(make_layer: MakeLayer) -> None:
    """The first message above the capacity of a channel raises ChannelFull."""
    layer = await make_layer(capacity=3)
    for number in range(3):
        await layer.send("test-channel-1", numbered(number))
    with pytest.raises(ChannelFull):
        await layer.send("test-channel-1", numbered(3))
    assert await receive_numbers(layer, "test-channel-1", 3) == [0, 1, 2]


async def test_send_specific_capacity(make_layer: MakeLayer) -> None:
    """A capacity of its own counts for a channel that channel_capacity names."""
    layer = await make_layer(capacity=3, channel_capacity={"one": 1, re.compile("tw.$"): 2})
    await layer.send("one", numbered(0))
    with pytest.raises(ChannelFull):
        await layer.send("one", numbered(1))
    await layer.send("two", numbered(0))
    await layer.send("two", numbered(1))
    with pytest.raises(ChannelFull):
        await layer.send("two", numbered(2))


async def test_process_local_send_receive(make_layer: MakeLayer) -> None:
    """A message to a process-specific channel is received there."""
    layer = await make_layer()
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "test.message", "text": "Local only please"})
    assert (await receive(layer, channel))["text"] == "Local only please"


async def test_multi_send_receive(make_layer: MakeLayer) -> None:
    """Several messages arrive in their order."""
    layer = await make_layer()
    for number in range(3):
        await layer.send("test-channel-3", numbered(number))
    assert await receive_numbers(layer, "test-channel-3", 3) == [0, 1, 2]


async def test_reject_bad_channel(make_layer: MakeLayer) -> None:
    """An invalid name is a TypeError for writers and readers."""
    layer = await make_layer()
    with pytest.raises(TypeError):
        await layer.send("=+135!", numbered(0))
    with pytest.raises(TypeError):
        await layer.receive("=+135!")


async def test_reject_bad_client_prefix(make_layer: MakeLayer) -> None:
    """A process-specific channel of another process is not to be received here."""
    layer = await make_layer()
    with pytest.raises(AssertionError):
        await layer.receive("not-client-prefix!local_part")


async def test_groups_basic(make_layer: MakeLayer) -> None:
    """The members of a group get its messages; who has left gets none."""
    layer = await make_layer()
    channels = [await layer.new_channel(f"test-gr-chan-{number}") for number in range(3)]
    for channel in channels:
        await layer.group_add("test-group", channel)
    await layer.group_discard("test-group", channels[1])
    await layer.group_send("test-group", numbered(1))
    assert await receive(layer, channels[0]) == numbered(1)
    assert await receive(layer, channels[2]) == numbered(1)
    assert await only_end_comes(layer, channels[1])


async def test_groups_channel_full(make_layer: MakeLayer) -> None:
    """A full member is passed over in silence."""
    layer = await make_layer(capacity=3)
    await layer.group_add("test-group", "test-gr-chan-1")
    for number in range(5):
        await layer.group_send("test-group", numbered(number))
    assert await receive_numbers(layer, "test-gr-chan-1", 3) == [0, 1, 2]
    assert await only_end_comes(layer, "test-gr-chan-1")


async def test_groups_multiple_hosts(make_layer: MakeLayer) -> None:
    """Two messages reach every member twice, wherever group and members live."""
    layer = await make_layer()
    channels = [await layer.new_channel(f"channel{number}") for number in range(3)]
    for channel in channels:
        await layer.group_add("test-group", channel)
    await layer.group_discard("test-group", channels[1])
    for number in range(2):
        await layer.group_send("test-group", numbered(number))
    assert await receive_numbers(layer, channels[0], 2) == [0, 1]
    assert await receive_numbers(layer, channels[2], 2) == [0, 1]
    assert await only_end_comes(layer, channels[1])


async def test_groups_same_prefix(make_layer: MakeLayer) -> None:
    """Channels that share everything up to the ! are members each for itself."""
    layer = await make_layer()
    channels = [await layer.new_channel("test-gr-chan") for _ in range(3)]
    for channel in channels:
        await layer.group_add("test-group", channel)
    await layer.group_send("test-group", numbered(1))
    for channel in channels:
        assert await receive(layer, channel) == numbered(1)


@pytest.mark.parametrize(("members", "deadline_s"), [(1, 10), (10, 10), (100, 30)])
async def test_groups_multiple_hosts_performance(
    make_layer: MakeLayer, members: int, deadline_s: float
) -> None:
    """One group_send to so many members is acknowledged and received within the deadline."""
    layer = await make_layer(capacity=100)
    channels = [await layer.new_channel(f"channel{number}") for number in range(members)]
    for channel in channels:
        await layer.group_add("test-group", channel)
    async with asyncio.timeout(deadline_s):
        await layer.group_send("test-group", numbered(1))
    async with asyncio.timeout(deadline_s):
        for channel in channels:
            assert await layer.receive(channel) == numbered(1)


async def test_group_send_capacity(make_layer: MakeLayer) -> None:
    """A member gets as many messages as its capacity, the rest are dropped and counted."""
    layer = await make_layer(capacity=3)
    channel = await layer.new_channel()
    await layer.group_add("test-group", channel)
    for number in range(4):
        await layer.group_send("test-group", numbered(number))
    await eventually_async(lambda: layer.stats()["lost"] == {"full": 1})
    assert await receive_numbers(layer, channel, 3) == [0, 1, 2]
    assert await only_end_comes(layer, channel)


async def test_group_send_capacity_multiple_channels(make_layer: MakeLayer) -> None:
    """A member that is full takes nothing away from the others."""
    layer = await make_layer(capacity=3)
    first, second = await layer.new_channel(), await layer.new_channel("channel_2")
    await layer.group_add("test-group", first)
    await layer.group_add("test-group", second)
    await layer.send(second, numbered(0))
    for number in range(1, 4):
        await layer.group_send("test-group", numbered(number))
    await eventually_async(lambda: layer.stats()["lost"] == {"full": 1})
    assert await receive_numbers(layer, first, 3) == [1, 2, 3]
    assert await receive_numbers(layer, second, 3) == [0, 1, 2]
    assert await only_end_comes(layer, second)


def test_repeated_group_send_with_async_to_sync(way: dict[str, Any]) -> None:
    """Every call of async_to_sync has a loop of its own, which the layer outlives."""
    layer = ClusterChannelLayer(**way, prefix=unique_prefix(), capacity=3)
    for number in range(3):
        async_to_sync(layer.group_send)(f"group_{number}", numbered(number))
    async_to_sync(layer.close)()


async def test_receive_cancel(make_layer: MakeLayer) -> None:
    """A cancelled receive() loses nothing, whenever the cancellation comes."""
    layer = await make_layer(capacity=200)
    channel = await layer.new_channel()
    received = []
    for number in range(100):
        await layer.send(channel, numbered(number))
        task = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(number * 0.0001)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, dict):
            received.append(outcome["n"])
        else:
            assert isinstance(outcome, asyncio.CancelledError)
    await layer.send(channel, numbered(-1, end=True))
    assert received + await numbers_before_end(layer, channel) == list(range(100))


async def test_random_reset__channel_name(make_layer: MakeLayer) -> None:
    """Channel names do not depend on the seed of the random module."""
    layer = await make_layer()
    random.seed(1)
    first = await layer.new_channel()
    random.seed(1)
    assert await layer.new_channel() != first


async def test_random_reset__client_prefix(make_layer: MakeLayer) -> None:
    """Nor does the process id in them."""
    random.seed(1)
    first = await make_layer()
    random.seed(1)
    second = await make_layer()
    assert first.stats()["process"] != second.stats()["process"]


async def _three_with_delay(
    send: Callable[[str, Any], Awaitable[None]], name: str, delay_s: float
) -> None:
    for number in range(3):
        if number:
            await asyncio.sleep(delay_s)
        await send(name, numbered(number))


@pytest.mark.parametrize("way", ["1 shard", "3 shards"], indirect=True)
class TestExpiry:
    """Expiry takes time, so not in every way to reach shards."""

    async def test_message_expiry__earliest_message_expires(self, make_layer: MakeLayer) -> None:
        """What has waited longer than `expiry` is gone, what came later is not."""
        layer = await make_layer(expiry=3.5)
        channel = await layer.new_channel()
        await _three_with_delay(layer.send, channel, 2)
        assert await receive_numbers(layer, channel, 2) == [1, 2]
        assert await only_end_comes(layer, channel)

    async def test_message_expiry__all_messages_under_expiration_time(
        self, make_layer: MakeLayer
    ) -> None:
        """What has waited less is there."""
        layer = await make_layer(expiry=DEADLINE_S)
        channel = await layer.new_channel()
        await _three_with_delay(layer.send, channel, 0.5)
        assert await receive_numbers(layer, channel, 3) == [0, 1, 2]

    async def test_message_expiry__group_send(self, make_layer: MakeLayer) -> None:
        """The same for messages that came through a group."""
        layer = await make_layer(expiry=3.5)
        channel = await layer.new_channel()
        await layer.group_add("test-group", channel)
        await _three_with_delay(layer.group_send, "test-group", 2)
        await layer.send(channel, numbered(-1, end=True))
        assert await numbers_before_end(layer, channel) == [1, 2]

    async def test_message_expiry__group_send__one_channel_expires_message(
        self, make_layer: MakeLayer
    ) -> None:
        """A message that expires on one member's channel takes nothing from another member."""
        layer = await make_layer(expiry=4)
        first, second = await layer.new_channel(), await layer.new_channel("channel_2")
        await layer.group_add("test-group", first)
        await layer.group_add("test-group", second)
        await layer.send(first, numbered(-2))
        await asyncio.sleep(3.2)
        await _three_with_delay(layer.group_send, "test-group", 0.5)
        assert await receive_numbers(layer, second, 3) == [0, 1, 2]
        await layer.send(first, numbered(-1, end=True))
        arrived = await numbers_before_end(layer, first)
        assert arrived == list(range(len(arrived)))


async def test_receive_buffer_respects_capacity(make_layer: MakeLayer) -> None:
    """What waits for a receiver inside the process is bounded by the channel's capacity."""
    layer = await make_layer(capacity=100)
    channel = await layer.new_channel()
    await layer.group_add("test-group", channel)
    for number in range(1000):
        await layer.group_send("test-group", numbered(number))
    # A message that is still on its way when the first are received would find room.
    await eventually_async(lambda: layer.stats()["lost"] == {"full": 900})
    assert await receive_numbers(layer, channel, 100) == list(range(100))
    assert await only_end_comes(layer, channel)
