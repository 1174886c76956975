"""Prefixes and databases separate layers; a message is a value."""

from typing import Any

from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    numbered,
    only_end_comes,
    open_layer,
    receive,
    unique_prefix,
)


async def _hear_nothing_of_each_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    async with open_layer(**one) as first, open_layer(**other) as second:
        channels = {}
        for layer in (first, second):
            channels[layer] = await layer.new_channel()
            await layer.group_add("group", channels[layer])
            await layer.group_add("group", "orders")
        await first.group_send("group", numbered(1))
        await first.send("parcels", numbered(2))
        assert await receive(first, channels[first]) == numbered(1)
        assert await receive(first, "orders") == numbered(1)
        for name in (channels[second], "orders", "parcels"):
            assert await only_end_comes(second, name)
        await second.flush()
        assert await receive(first, "parcels") == numbered(2)
        await first.group_send("group", numbered(3))
        assert await receive(first, channels[first]) == numbered(3)


async def test_prefixes_separate_layers_on_the_same_shards(shards: list[RedisServer]) -> None:
    """Neither messages nor groups nor flush() cross a prefix, also if one begins like the other."""
    hosts = [shard.url for shard in shards]
    prefix = unique_prefix()
    await _hear_nothing_of_each_other(
        {"hosts": hosts, "prefix": prefix}, {"hosts": hosts, "prefix": f"{prefix}:"}
    )


async def test_databases_separate_layers_with_the_same_prefix(shards: list[RedisServer]) -> None:
    """As with channels_redis, a database number of its own is enough."""
    prefix = unique_prefix()
    await _hear_nothing_of_each_other(
        {"hosts": [f"{shards[0].url}/1"], "prefix": prefix},
        {"hosts": [f"{shards[0].url}/2"], "prefix": prefix},
    )


async def test_a_message_is_a_value(shards: list[RedisServer]) -> None:
    """Changing the dict after send, or in one receiver, changes nothing elsewhere."""
    async with open_layer(shards) as layer:
        members = [await layer.new_channel() for _ in range(3)]
        for member in members:
            await layer.group_add("group", member)
        message = numbered(1, tags=["a"], nested={"b": [1]})
        original = numbered(1, tags=["a"], nested={"b": [1]})
        await layer.group_send("group", message)
        await layer.send(members[0], message)
        message["tags"].append("changed")
        message["nested"]["b"].clear()
        for member in (members[0], *members):
            received = await receive(layer, member)
            assert received == original
            received["tags"].append("changed by a receiver")
            received["nested"]["b"].append(2)
