"""The Channels specification, line by line; sections are those of its text."""

import asyncio
import math
from typing import Any

import pytest
from channels import exceptions as channels_exceptions

from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ChannelFull, InvalidMessage, InvalidName, MessageTooLarge
from tests.support.layers import (
    numbered,
    numbers_before_end,
    only_end_comes,
    open_layer,
    receive,
    receive_numbers,
    shared_config,
)

EVERY_TYPE: dict[str, Any] = {
    "type": "a.b",
    "byte string": b"\x00\xff",
    "unicode string": "\u00e9\u4e2d\U0001f600",
    "integers": [0, 1, -1, 2**63 - 1, -(2**63)],
    "floats": [0.5, -1e308, 5e-324, math.inf],
    "list": [1, [2, []]],
    "dict": {"a": {"b": {}}},
    "booleans": [True, False],
    "None": None,
}


async def test_messages_hold_every_allowed_type(shards: list[RedisServer]) -> None:
    """Messages: each type arrives as itself, in all three ways."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.send(channel, EVERY_TYPE)
        await layer.group_send("group", EVERY_TYPE)
        await layer.send("orders", EVERY_TYPE)
        for source in (channel, channel, "orders"):
            assert repr(await receive(layer, source)) == repr(EVERY_TYPE)


async def test_tuples_are_encoded_as_lists(shards: list[RedisServer]) -> None:
    """Messages: at any depth."""
    async with open_layer(shards) as layer:
        await layer.send("orders", {"type": "a", "t": (1, (2, {"x": ()}))})
        assert await receive(layer, "orders") == {"type": "a", "t": [1, [2, {"x": []}]]}


@pytest.mark.parametrize(
    "message",
    [None, [], "text", {1: 2}, {"a": {2: 3}}, {"a": {1, 2}}, {"a": 2**63}, {"a": object}],
    ids=repr,
)
async def test_other_messages_are_refused(shards: list[RedisServer], message: Any) -> None:
    """Messages must be a dict of those types: a TypeError, and nothing is sent."""
    async with open_layer(shards) as layer:
        for refused in (layer.send("orders", message), layer.group_send("group", message)):
            with pytest.raises(InvalidMessage):
                await refused
        assert await only_end_comes(layer, "orders")


async def test_normal_channels_have_many_writers_and_readers(shards: list[RedisServer]) -> None:
    """Channels: first in, first out; every message has a single reader."""
    config = shared_config(shards)
    async with open_layer(**config) as first, open_layer(**config) as second:
        readers = [asyncio.create_task(receive_numbers(x, "orders", 20)) for x in (first, second)]
        for number in range(40):
            await (first, second)[number % 2].send("orders", numbered(number))
        shares = await asyncio.gather(*readers)
        assert sorted(shares[0] + shares[1]) == list(range(40))


async def test_a_process_specific_channel_is_received_by_name_or_inbox(
    shards: list[RedisServer],
) -> None:
    """Channels: the name up to and including ! gets the messages of every channel with it."""
    async with open_layer(shards) as layer:
        channels = [await layer.new_channel() for _ in range(3)]
        inbox = channels[0][: channels[0].index("!") + 1]
        for number, channel in enumerate(channels):
            await layer.send(channel, numbered(number))
        async with asyncio.timeout(20):
            arrived = [await layer.receive_from(inbox) for _ in channels]
        assert arrived == [(channel, numbered(n)) for n, channel in enumerate(channels)]
        await layer.send(channels[1], numbered(7))
        assert await receive(layer, channels[1]) == numbered(7)
        await layer.send(inbox, numbered(8))
        assert await receive(layer, inbox) == numbered(8)


async def test_messages_for_other_local_parts_wait(shards: list[RedisServer]) -> None:
    """Channels: receiving one channel takes nothing from its neighbours."""
    async with open_layer(shards) as layer:
        first, second = await layer.new_channel(), await layer.new_channel()
        await layer.send(first, numbered(1))
        await layer.send(second, numbered(2))
        assert await receive(layer, second) == numbered(2)
        assert await receive(layer, first) == numbered(1)


async def test_messages_expire_after_a_set_time_unread(shards: list[RedisServer]) -> None:
    """Channels: the time can be configured."""
    async with open_layer(shards, expiry=0.5) as layer:
        for channel in (await layer.new_channel(), "orders"):
            await layer.send(channel, numbered(1))
            await asyncio.sleep(0.7)
            assert await only_end_comes(layer, channel)


@pytest.mark.parametrize("text", ["x", "\u4e2d", '"'])
async def test_a_megabyte_of_json_is_supported(shards: list[RedisServer], text: str) -> None:
    """Channels: at least 1 MB if it were encoded as JSON; also of the worst kind, short floats."""
    async with open_layer(shards) as layer:
        size = len(text.encode()) if text != '"' else 2
        messages: list[dict[str, Any]] = [
            {"type": "a", "text": text * (1_000_000 // size)},
            {"type": "a", "floats": [0.5] * (1_000_000 // len("0.5,"))},
        ]
        for message in messages:
            await layer.send("orders", message)
            assert await receive(layer, "orders") == message


async def test_the_size_limit_is_configurable(shards: list[RedisServer]) -> None:
    """Specification details: MessageTooLarge from send and group_send."""
    async with open_layer(shards, message_size_limit=1_000_000) as layer:
        message = numbered(1, data=b"x" * 1_000_000)
        for refused in (layer.send("orders", message), layer.group_send("group", message)):
            with pytest.raises(layer.MessageTooLarge) as large:
                await refused
            assert large.value.limit == 1_000_000


async def test_the_layer_has_the_attributes_of_the_specification(
    shards: list[RedisServer],
) -> None:
    """Specification details: extensions, exceptions and group_expiry."""
    async with open_layer(shards, group_expiry=123) as layer:
        assert layer.extensions == ["groups", "flush"]
        assert issubclass(layer.ChannelFull, channels_exceptions.ChannelFull)
        assert issubclass(layer.MessageTooLarge, channels_exceptions.MessageTooLarge)
        assert (layer.ChannelFull, layer.MessageTooLarge) == (ChannelFull, MessageTooLarge)
        assert layer.group_expiry == 123
    async with open_layer(shards) as layer:
        assert layer.group_expiry == 86_400


async def test_capacity_counts_for_the_part_up_to_the_mark(shards: list[RedisServer]) -> None:
    """Capacity: the channels of one process share it, for messages that have not been taken."""
    async with open_layer(shards, capacity=3) as layer, open_layer(shards) as stranger:
        assert stranger.prefix != layer.prefix
        # Nobody reads the inbox of a process that does not exist.
        for number in range(3):
            await layer.send(f"specific.0123456789abcdef!{number}", numbered(number))
        with pytest.raises(ChannelFull) as full:
            await layer.send("specific.0123456789abcdef!other", numbered(3))
        assert full.value.channel == "specific.0123456789abcdef!other"
        assert (full.value.depth, full.value.limit) == (3, 3)


async def test_sending_to_a_group_never_raises_channel_full(shards: list[RedisServer]) -> None:
    """Capacity: a member that is full misses the message, in silence."""
    async with open_layer(shards, capacity=1) as layer:
        channel = await layer.new_channel()
        for member in (channel, "orders", "specific.0123456789abcdef!x"):
            await layer.group_add("group", member)
        for number in range(5):
            await layer.group_send("group", numbered(number))
        assert await receive(layer, channel) == numbered(0)
        assert await receive(layer, "orders") == numbered(0)


async def test_new_channels_are_process_specific_and_new(shards: list[RedisServer]) -> None:
    """Specification details: 1,000 names, all different, of the wanted prefix."""
    async with open_layer(shards) as layer:
        names = {await layer.new_channel() for _ in range(500)}
        names |= {await layer.new_channel("my-prefix") for _ in range(500)}
        assert len(names) == 1000
        assert all(name.count("!") == 1 and not name.endswith("!") for name in names)
        assert sum(name.startswith("my-prefix.") for name in names) == 500
        with pytest.raises(InvalidName):
            await layer.new_channel("not valid")


async def test_joining_twice_and_leaving_without_joining_are_normal(
    shards: list[RedisServer],
) -> None:
    """Specification details: group_add of a member, group_discard of a stranger."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_discard("group", channel)
        await layer.group_discard("group", "orders")
        for _ in range(3):
            await layer.group_add("group", channel)
            await layer.group_add("group", "orders")
        await layer.group_send("group", numbered(1))
        for member in (channel, "orders"):
            assert await receive(layer, member) == numbered(1)
            assert await only_end_comes(layer, member)
        for _ in range(2):
            await layer.group_discard("group", channel)
        await layer.group_send("group", numbered(2))
        assert await only_end_comes(layer, channel)


async def test_a_message_to_an_empty_group_goes_nowhere(shards: list[RedisServer]) -> None:
    """Groups: sending to nobody is no error, and nobody gets it later."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_send("group", numbered(1))
        await layer.group_add("group", channel)
        assert await only_end_comes(layer, channel)


async def test_flush_resets_the_layer(shards: list[RedisServer]) -> None:
    """Specification details: no messages and no groups."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", numbered(1))
        await layer.send(channel, numbered(2))
        await layer.send("orders", numbered(3))
        await layer.flush()
        await layer.group_send("group", numbered(4))
        assert await only_end_comes(layer, channel)
        assert await only_end_comes(layer, "orders")


async def test_sending_never_waits_for_a_reader(shards: list[RedisServer]) -> None:
    """Channel semantics: 1,000 messages that nobody reads."""
    async with open_layer(shards, capacity=2000) as layer, asyncio.timeout(20):
        for number in range(1000):
            await layer.send("orders", numbered(number))


@pytest.mark.parametrize("length", [1, 99, 100])
async def test_names_have_up_to_100_bytes(shards: list[RedisServer], length: int) -> None:
    """Channel semantics: at least 100; here exactly that many for channels and groups."""
    name = "n" * length
    async with open_layer(shards) as layer:
        await layer.send(name, numbered(1))
        assert await receive(layer, name) == numbered(1)
        await layer.group_add(name, name)
        await layer.group_send(name, numbered(2))
        assert await receive(layer, name) == numbered(2)


@pytest.mark.parametrize("name", ["n" * 101, "", "a b", "a/b", "\u00e9", "a!b!c", None, b"bytes"])
async def test_other_names_are_refused(shards: list[RedisServer], name: Any) -> None:
    """Strings and Unicode: by every verb, with a TypeError."""
    async with open_layer(shards) as layer:
        for refused in (
            layer.send(name, numbered(1)),
            layer.receive(name),
            layer.group_add("group", name),
            layer.group_add(name, "channel"),
            layer.group_discard("group", name),
            layer.group_discard(name, "channel"),
            layer.group_send(name, numbered(1)),
        ):
            with pytest.raises(InvalidName):
                await refused


async def test_a_single_reader_channel_is_a_channel(shards: list[RedisServer]) -> None:
    """Strings and Unicode: the question mark is allowed, and such a channel keeps order."""
    async with open_layer(shards) as layer:
        for number in range(10):
            await layer.send("response?1", numbered(number))
        assert await receive_numbers(layer, "response?1", 10) == list(range(10))


async def test_membership_lasts_while_messages_are_read(shards: list[RedisServer]) -> None:
    """Persistence: it ends no earlier than a message expires unread, however long that is."""
    async with open_layer(shards, expiry=0.5) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for number in range(8):
            await layer.group_send("group", numbered(number))
            assert await receive(layer, channel) == numbered(number)
            await asyncio.sleep(0.4)


async def test_an_idle_membership_outlasts_the_message_expiry(shards: list[RedisServer]) -> None:
    """Persistence: no message has expired, so the membership stands, read or not."""
    async with open_layer(shards, expiry=0.5) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_add("group", "orders")
        await asyncio.sleep(2.5)
        await layer.group_send("group", numbered(1))
        assert await receive(layer, channel) == numbered(1)
        assert await receive(layer, "orders") == numbered(1)


async def test_membership_ends_after_group_expiry(shards: list[RedisServer]) -> None:
    """Persistence: counted from the most recent group_add, for both kinds of members."""
    async with open_layer(shards, group_expiry=1.5, expiry=1) as layer:
        channel = await layer.new_channel()
        members = (channel, "orders")
        for member in members:
            await layer.group_add("group", member)
        await asyncio.sleep(1)
        for member in members:
            await layer.group_add("group", member)
        await asyncio.sleep(1)
        await layer.group_send("group", numbered(1))
        for member in members:
            assert await receive(layer, member) == numbered(1)
        await asyncio.sleep(2.5)
        await layer.group_send("group", numbered(2))
        for member in members:
            await layer.send(member, numbered(-1, end=True))
            assert await numbers_before_end(layer, member) == []


async def test_busy_channels_do_not_starve_quiet_ones(shards: list[RedisServer]) -> None:
    """Approximate global ordering: a quiet channel's reader is served among 2,000 messages."""
    async with open_layer(shards, capacity=5000) as layer:
        busy, quiet = await layer.new_channel(), await layer.new_channel()
        for number in range(1000):
            await layer.send(busy, numbered(number))
            await layer.send("busy", numbered(number))
        await layer.send(quiet, numbered(1))
        await layer.send("quiet", numbered(2))
        async with asyncio.timeout(20):
            heard = await asyncio.gather(layer.receive(quiet), layer.receive("quiet"))
        assert list(heard) == [numbered(1), numbered(2)]
