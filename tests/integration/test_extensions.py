"""Beyond the specification: many messages at once, without some members, for a shorter time."""

import asyncio

import pytest

from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ChannelFull, InvalidMessage, InvalidName, MessageTooLarge
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    only_end_comes,
    open_layer,
    receive,
    receive_numbers,
    shared_config,
)
from tests.support.waiting import eventually_async
from tests.support.workers import Worker

# -- exclude


@pytest.mark.parametrize("confirm", [True, False])
@pytest.mark.parametrize("keys", [[], ["a key"]])
async def test_the_excluded_do_not_get_it_and_all_others_do(
    shards: list[RedisServer], confirm: bool, keys: list[str]
) -> None:
    """Members of this process and of another one, stored ones, on every shard."""
    config = shared_config(shards, symmetric_encryption_keys=keys)
    async with open_layer(**config) as layer, Worker(config) as other:
        for group in await names_on_all_shards(layer, "group"):
            mine, mine_out = [await layer.new_channel() for _ in range(2)]
            theirs, theirs_out = [await other.call("join", group) for _ in range(2)]
            for channel in (mine, mine_out, f"{group}.in", f"{group}.out"):
                await layer.group_add(group, channel)
            out = [mine_out, theirs_out, f"{group}.out", "nobody"]
            await layer.group_send(group, numbered(1), exclude=out, confirm=confirm)
            await layer.group_send(group, numbered(2), confirm=confirm)
            for channel in (mine, f"{group}.in"):
                assert await receive_numbers(layer, channel, 2) == [1, 2]
            for channel in (mine_out, f"{group}.out"):
                assert await receive(layer, channel) == numbered(2)
            assert [(await other.call("receive", theirs))["n"] for _ in range(2)] == [1, 2]
            assert (await other.call("receive", theirs_out))["n"] == 2


async def test_excluding_keeps_the_order(shards: list[RedisServer]) -> None:
    """Whoever is excluded from some messages gets the others in the order of their sending."""
    async with open_layer(shards, capacity=1000) as layer:
        channel = await layer.new_channel()
        groups = await names_on_all_shards(layer, "group")
        for group in groups:
            await layer.group_add(group, channel)
        expected = []
        for number in range(150):
            exclude = [channel] if number % 4 == 0 else []
            if number % 5 == 0:
                await layer.send(channel, numbered(number))
                expected.append(number)
            else:
                await layer.group_send(groups[number % 3], numbered(number), exclude=exclude)
                expected += [] if exclude else [number]
        assert await receive_numbers(layer, channel, len(expected)) == expected
        assert await only_end_comes(layer, channel)


# -- expiry


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_message_can_have_a_shorter_expiry(
    shards: list[RedisServer], confirm: bool
) -> None:
    """Direct, to a normal channel and to a group: it is gone, and those around it are not."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for send, name in (
            (layer.send, channel),
            (layer.send, "orders"),
            (layer.group_send, "group"),
        ):
            lost = layer.stats()["lost"].get("expired", 0)
            await send(name, numbered(1), confirm=confirm)
            await send(name, numbered(2), expiry=0.05, confirm=confirm)
            await send(name, numbered(3), confirm=confirm)
            await layer.wait_for_confirms()
            await asyncio.sleep(0.2)
            reader = "orders" if name == "orders" else channel
            assert await receive_numbers(layer, reader, 2) == [1, 3]
            assert layer.stats()["lost"]["expired"] == lost + 1


async def test_a_short_expiry_ends_no_membership(shards: list[RedisServer]) -> None:
    """A consumer that is busy for longer than such a message lives stays in its groups."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", numbered(1))
        assert await receive(layer, channel) == numbered(1)
        for number in range(2):
            await layer.group_send("group", numbered(number), expiry=0.05)
            await layer.send(channel, numbered(number), expiry=0.05)
        # The sweep finds them expired, with nobody in receive().
        await eventually_async(lambda: layer.stats()["lost"].get("expired") == 4)
        assert await layer.group_channels("group") == {channel}
        await layer.group_send("group", numbered(2))
        assert await receive(layer, channel) == numbered(2)


async def test_a_longer_expiry_than_the_layers_is_refused(shards: list[RedisServer]) -> None:
    """What the shards keep lives for CONFIG expiry; the error says so."""
    async with open_layer(shards, expiry=10) as layer:
        with pytest.raises(InvalidMessage, match="CONFIG expiry"):
            await layer.send("orders", numbered(1), expiry=11)
        assert await only_end_comes(layer, "orders")


# -- send_many


async def test_many_messages_at_once_arrive_in_order(shards: list[RedisServer]) -> None:
    """300 messages to ten channels on all shards; and what is sent afterwards comes afterwards."""
    async with open_layer(shards) as layer:
        names = await names_on_all_shards(layer, "orders")
        channels = [await layer.new_channel(f"a{n}") for n in range(7)] + names
        batch = [(channels[n % 10], numbered(n)) for n in range(300)]
        assert await layer.send_many(batch) == [None] * 300
        for channel in channels:
            await layer.send(channel, numbered(-1))
        for place, channel in enumerate(channels):
            expected = [*range(place, 300, 10), -1]
            assert await receive_numbers(layer, channel, 31) == expected


async def test_each_of_many_has_its_own_outcome(shards: list[RedisServer]) -> None:
    """One that finds its channel full hinders no other."""
    async with open_layer(shards, channel_capacity={"tight": 2}) as layer:
        batch = [(name, numbered(n)) for n in range(3) for name in ("tight", "wide")]
        outcomes = await layer.send_many(batch)
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 4 + [
            ChannelFull,
            type(None),
        ]
        assert await receive_numbers(layer, "tight", 2) == [0, 1]
        assert await receive_numbers(layer, "wide", 3) == [0, 1, 2]


async def test_a_mistake_in_one_of_many_sends_none(shards: list[RedisServer]) -> None:
    """Names and messages are looked at before anything is sent."""
    async with open_layer(shards) as layer:
        good = ("orders", numbered(1))
        with pytest.raises(InvalidName):
            await layer.send_many([good, ("no name", numbered(2))])
        with pytest.raises(InvalidMessage):
            await layer.send_many([good, ("orders", {"type": object()})])
        with pytest.raises(MessageTooLarge):
            await layer.send_many([good, ("orders", numbered(2, data="x" * 3_000_000))])
        assert await layer.send_many([]) == []
        assert await only_end_comes(layer, "orders")
