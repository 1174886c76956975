"""Somebody writes to the shards who is none of us: nobody of us is harmed.

Who may write there can also write what is valid: drop messages, fill channels, change memberships.
docs/security.md says so.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.controls import control
from cluster_layer.embedded import RedisServer
from cluster_layer.envelope import CONTROL, MESSAGE, encode
from cluster_layer.keys import Keys
from tests.support.layers import numbered, open_layer, receive
from tests.support.waiting import eventually_async


class Victim:
    """A layer with a member, a direct channel and a normal one; and where its messages go by."""

    def __init__(self, layer: ClusterChannelLayer, server: RedisServer) -> None:
        self.layer = layer
        self.shard: Any = redis.Redis.from_url(server.url, protocol=2)
        self.channel = ""

    async def settle_in(self) -> None:
        self.channel = await self.layer.new_channel()
        await self.layer.group_add("room", self.channel)
        await self.is_well(-1)

    @property
    def keys(self) -> Keys:
        (runtime,) = self.layer._hosts.runtimes()
        (link,) = runtime.links.all()
        return link.keys

    async def is_well(self, number: int) -> None:
        """Messages of all three kinds arrive; whatever else came is passed over."""
        await self.layer.group_send("room", numbered(number, by="group"))
        await self.layer.send(self.channel, numbered(number, by="direct"))
        await self.layer.send("orders", numbered(number, by="normal"))
        await self._comes(self.channel, {(number, "group"), (number, "direct")})
        await self._comes("orders", {(number, "normal")})

    async def _comes(self, channel: str, wanted: set[tuple[int, str]]) -> None:
        while wanted:
            message = await receive(self.layer, channel)
            wanted.discard((message.get("n", 0), message.get("by", "")))


@pytest.fixture
async def victim(redis_server: RedisServer) -> AsyncIterator[Victim]:
    async with open_layer([redis_server], capacity=100_000) as layer:
        victim = Victim(layer, redis_server)
        await victim.settle_in()
        yield victim
        victim.shard.close()


def garbage(chance: random.Random, channel: str) -> bytes:
    """Bytes that are nothing, nearly something, or something that should not be there."""
    body = msgpack.packb({"type": "x"})
    valid = [
        encode(MESSAGE, 60_000, channel, None, body),
        encode(MESSAGE, 60_000, None, None, body, frozenset({"orders"})),
        control("stored", "room", "p.1!somebody", 1),
        control("unstored", "room", "p.1!somebody", 2**60),
        encode(CONTROL, 0, None, None, msgpack.packb({"op": "who", "token": "t", "group": "x"})),
        encode(CONTROL, 0, None, None, msgpack.packb({"op": "no such thing"})),
        encode(CONTROL, 0, channel, None, msgpack.packb({"op": "join", "group": "not a group!"})),
        encode(CONTROL, 0, channel, None, msgpack.packb({"op": "kick", "position": "9" * 5000})),
        b"9" * 5000,
        b"\x91" * 3000,
        b"",
    ]
    data = bytearray(chance.choice(valid))
    for _ in range(chance.choice((0, 0, 1, 3))):
        place = chance.randrange(len(data) + 1)
        data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_wherever_the_layer_reads_harms_nobody(
    victim: Victim, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """A thousand writes to every key and pub/sub channel that it reads; traffic goes on."""
    chance = random.Random(seed)
    keys, shard, channel = victim.keys, victim.shard, victim.channel
    inbox = channel[: channel.index("!") + 1]
    with caplog.at_level(logging.WARNING, "cluster_layer"):
        for number in range(1000):
            data = garbage(chance, channel)
            position = chance.choice((b"0", b"7", b"-1", b"9" * 30, b"", b"x"))
            where = number % 9
            if where == 0:
                shard.xadd(keys.inbox(inbox), {"m": data, "p": position})
            elif where == 1:
                shard.xadd(keys.inbox(inbox), {data[:9] or b"f": data})
            elif where == 2:
                shard.publish(keys.group("room"), position + b":" + data)
            elif where == 3:
                shard.publish(keys.control, position + b":" + data)
            elif where == 4:
                shard.rpush(keys.queue("orders"), position + b":" + data)
            elif where == 5:
                shard.publish(keys.cluster.announcements, data)
            elif where == 6:
                shard.zadd(keys.members("room"), {data: 2**52})
            elif where == 7:
                shard.zadd(keys.log, {position + b":" + data: chance.randrange(100)})
            else:
                shard.hset(keys.cluster.reports, data[:20] or b"id", data)
            if number % 250 == 249:
                await victim.is_well(number)
        shard.delete(keys.members("room"))
        # What was written to the log is read when the subscription comes up anew.
        shard.client_kill_filter(_type="pubsub")
        await eventually_async(lambda: victim.layer.stats()["lost"].get("malformed", 0) > 300)

        async def is_back() -> bool:
            return await victim.layer.group_channels("room") == {channel}

        await eventually_async(is_back)
        await victim.is_well(5000)
    failures = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert not failures, failures[0].getMessage()


async def test_a_sealed_message_can_not_be_moved_to_another_name(
    redis_server: RedisServer,
) -> None:
    """Copied from one channel to another, from a group to another, and between the kinds."""
    config: dict[str, Any] = {"symmetric_encryption_keys": ["a key"], "capacity": 1000}
    async with open_layer([redis_server], **config) as layer:
        victim = Victim(layer, redis_server)
        await victim.settle_in()
        keys, shard = victim.keys, victim.shard
        other = await layer.new_channel()
        await layer.group_add("other.room", other)
        await layer.send(other, numbered(0))
        assert await receive(layer, other) == numbered(0)

        listener = shard.pubsub()
        listener.subscribe(keys.group("room"))
        await asyncio.to_thread(listener.get_message, timeout=10)
        await layer.group_send("room", numbered(1))
        heard = await asyncio.to_thread(listener.get_message, timeout=10)
        position, _, envelope = heard["data"].partition(b":")
        assert await receive(layer, victim.channel) == numbered(1)

        # To another group; to a channel, direct and normal, with a readable outside that fits.
        shard.publish(keys.group("other.room"), position + b":" + envelope)
        sealed = msgpack.unpackb(envelope)[5]
        inbox = other[: other.index("!") + 1]
        forged = encode(MESSAGE, 60_000, other, None, sealed)
        shard.xadd(keys.inbox(inbox), {"m": forged, "p": "1000"})
        shard.rpush(
            keys.queue("orders"), b"%d:" % 2**50 + encode(MESSAGE, 9999, None, None, sealed)
        )

        await layer.group_send("other.room", numbered(2))
        await layer.send("orders", numbered(3))
        assert await receive(layer, other) == numbered(2)
        assert await receive(layer, "orders") == numbered(3)
        assert await layer.group_count("other.room") == 1
        await layer.send(other, numbered(4))
        assert await receive(layer, other) == numbered(4)
        assert layer.stats()["lost"] == {"undecipherable": 3}
        listener.close()
        shard.close()
