"""What is written where: lanes, marks, counts, and what a sender is told."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgpack
import pytest
import redis

from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.envelope import (
    CONTROL,
    MESSAGE,
    Envelope,
    decode,
    encode,
    encode_body,
    fingerprint,
)
from cluster_layer.errors import ChannelFull, DeliveryUnknown, ShardUnavailable
from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.links import Link, Links
from cluster_layer.marks import Doubt, Mark, Trail
from cluster_layer.running import LinkSettings
from cluster_layer.writer import TrailCell, Writer
from tests.support.parts import links_to
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

EXPIRY_MS = 60_000
THEIRS = "p.2!a"


class Sender:
    """A writer, its one shard, and direct access to what it has written."""

    def __init__(self, url: str, server: RedisServer) -> None:
        self.counters = Counters()
        settings = LinkSettings("test", timeout_s=2.0, connect_timeout_s=2.0)
        self.links = links_to(url, settings=settings, counters=self.counters)
        self.writer = Writer(self.links, self.counters, None, lambda _: 3, EXPIRY_MS)
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)
        self.cell = TrailCell(Trail())

    @property
    def link(self) -> Link:
        (link,) = self.links.all()
        return link

    async def send(self, channel: str) -> None:
        await self.writer.send(channel, encode_body({"type": "t"}, 1000), self.cell)

    async def group_send(self, group: str = "g") -> None:
        await self.writer.group_send(group, encode_body({"type": "t"}, 1000), self.cell)

    def entries(self) -> list[tuple[int, Envelope]]:
        """Position and envelope of what is in the inbox."""
        return [(int(fields[b"p"]), decode(fields[b"m"])) for fields in self.inbox()]

    def inbox(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.redis.xrange(self.link.keys.inbox("p.2!"))]

    def inbox_mark(self) -> int | None:
        """The position of its last entry that the task would give a group message now."""
        return self._mark().inbox

    def doubts(self) -> tuple[Doubt, ...]:
        return self._mark().doubts

    def _mark(self) -> Mark:
        marks = self.cell.trail.marks(Lane(self.link.shard, GROUP), 0.0, 1e12)
        assert marks is not None
        return marks[self.link.shard]

    def counted(self) -> dict[str, int]:
        (counters,) = self.counters.as_dict()["shards"].values()
        return {name: count for name, count in counters.items() if count}


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def sender(proxy: TcpProxy, redis_server: RedisServer) -> AsyncIterator[Sender]:
    sender = Sender(proxy.url, redis_server)
    await sender.link.ready()
    yield sender
    await sender.links.close()
    sender.redis.close()


async def test_a_send_is_an_entry_or_an_item(sender: Sender) -> None:
    """Process-specific channels have an inbox, normal ones a queue; both are counted as sent."""
    await sender.send(THEIRS)
    await sender.send("normal")
    ((_, envelope),) = sender.entries()
    assert (envelope.channel, envelope.ttl_ms, envelope.marks) == (THEIRS, EXPIRY_MS, None)
    (item,) = sender.redis.lrange(sender.link.keys.queue("normal"), 0, -1)
    assert decode(item.partition(b":")[2]).channel is None
    assert sender.counted() == {"sent": 2}


@pytest.mark.parametrize("channel", [THEIRS, "normal"])
async def test_a_full_channel_is_told(sender: Sender, channel: str) -> None:
    """With its depth and its capacity, and nothing is added."""
    for _ in range(3):
        await sender.send(channel)
    with pytest.raises(ChannelFull) as caught:
        await sender.send(channel)
    assert (caught.value.channel, caught.value.depth, caught.value.limit) == (channel, 3, 3)
    assert sender.counted() == {"sent": 3}


async def test_a_task_s_next_write_names_the_last_one_elsewhere(sender: Sender) -> None:
    """The mark is the position that the shard gave."""
    await sender.group_send()
    await sender.group_send()
    await sender.send(THEIRS)
    await sender.send(THEIRS)
    shard, life = sender.link.shard, sender.link.keys.incarnation
    envelopes = [envelope for _, envelope in sender.entries()]
    assert [envelope.marks for envelope in envelopes] == [{shard: Mark(life, None, 2)}] * 2


async def test_an_unknown_group_send_is_marked_with_what_the_shard_says(
    sender: Sender, proxy: TcpProxy
) -> None:
    """The group message was executed; the next write waits for its position, and for no later."""
    await sender.group_send()
    proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(DeliveryUnknown):
        await sender.group_send()
    await sender.send(THEIRS)
    ((_, envelope),) = sender.entries()
    assert envelope.marks is not None
    assert envelope.marks[sender.link.shard].group == 2
    assert sender.counted() == {"published": 1, "unknown": 1, "sent": 1, "reconnects": 1}


async def test_an_unknown_send_is_marked_with_what_the_shard_says(
    sender: Sender, proxy: TcpProxy
) -> None:
    """The entry was added; the next write waits for its position, and for no later."""
    await sender.send(THEIRS)
    proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(DeliveryUnknown):
        await sender.send(THEIRS)
    assert [position for position, _ in sender.entries()] == [1, 2]
    assert sender.inbox_mark() == 2


async def test_a_write_that_nobody_can_tell_about_is_marked_as_unknown(
    sender: Sender, proxy: TcpProxy
) -> None:
    """The shard does not answer the question for its counter either: readers look for the bytes."""
    await sender.send(THEIRS)
    proxy.blackhole("replies")
    with pytest.raises(DeliveryUnknown):
        await sender.send(THEIRS)
    assert sender.inbox_mark() == 1
    (_, data) = [fields[b"m"] for fields in sender.inbox()]
    assert sender.doubts() == (Doubt(INBOX, fingerprint("", data)),)
    proxy.heal()
    await sender.link.ready()
    await sender.group_send()
    assert (sender.inbox_mark(), sender.doubts()) == (2, ())


async def test_a_group_send_that_nobody_can_tell_about_is_marked_with_its_group(
    sender: Sender, proxy: TcpProxy
) -> None:
    """The name is not among the bytes, and equal bytes go to many groups."""
    proxy.blackhole("replies")
    with pytest.raises(DeliveryUnknown):
        await sender.group_send("g")
    body = encode_body({"type": "t"}, 1000)
    written = fingerprint("g", encode(MESSAGE, EXPIRY_MS, None, None, body))
    marks = sender.cell.trail.marks(Lane(sender.link.shard, INBOX), 0.0, 1e12)
    assert marks == {
        sender.link.shard: Mark(sender.link.keys.incarnation, None, None, (Doubt(GROUP, written),))
    }


async def test_a_dead_shard_is_counted_as_refused(redis_server: RedisServer) -> None:
    """Definite: nothing was written, and no order depends on it."""
    sender = Sender(redis_server.url, redis_server)
    await sender.link.ready()
    redis_server.kill()
    await eventually_async(lambda: sender.link._refusal is not None)
    with pytest.raises(ShardUnavailable):
        await sender.send(THEIRS)
    assert sender.cell.trail.marks(Lane("another", GROUP), 0.0, 1e12) is None
    assert sender.counted() == {"refused": 1}
    await sender.links.close()
    sender.redis.close()


async def test_a_stored_member_is_sent_to_one_by_one(sender: Sender) -> None:
    """Until its process has taken it over, to which it is invited; a full one is counted."""
    await sender.writer.store_member("g", THEIRS, EXPIRY_MS)
    await sender.writer.store_member("g", "normal", EXPIRY_MS)
    for _ in range(4):
        await sender.group_send()
    envelopes = [envelope for _, envelope in sender.entries()]
    assert [envelope.kind for envelope in envelopes] == [CONTROL, 0, 0]
    assert msgpack.unpackb(envelopes[0].body) == {"op": "join", "group": "g"}
    assert sender.redis.llen(sender.link.keys.queue("normal")) == 3
    assert sender.counters.lost == {Loss.FULL: 3}


async def test_a_removed_member_is_told(sender: Sender) -> None:
    """It is sent to no more, and its process hears of it also by its inbox."""
    await sender.writer.store_member("g", THEIRS, EXPIRY_MS)
    await sender.writer.remove_member("g", THEIRS, EXPIRY_MS)
    await sender.group_send()
    controls = [msgpack.unpackb(envelope.body) for _, envelope in sender.entries()]
    assert [control["op"] for control in controls] == ["join", "kick"]
    assert controls[1]["life"] == sender.link.keys.incarnation
    assert controls[1]["position"] == "2"


@pytest.fixture
async def links(shards: list[RedisServer]) -> AsyncIterator[Links]:
    """Those to three shards, with little patience."""
    settings = LinkSettings("mover", timeout_s=0.5, connect_timeout_s=2.0)
    links = links_to(*(one.url for one in shards), settings=settings, counters=Counters())
    for link in links.all():
        await link.ready()
    yield links
    await links.close()


class Listener:
    """A process, as far as shards see it: who listens to the pub/sub channel that bears its id."""

    def __init__(self, process: str, links: Links) -> None:
        self._process = process
        self._links = links
        self._listening: list[Any] = []

    async def listen(self, shards: Iterable[str]) -> None:
        for shard in shards:
            link = self._links.to(shard)
            client = link.endpoint.new_connection(5.0)
            await client.connect()  # type: ignore[no-untyped-call]
            self._listening.append(client)
            await client.send_command("SUBSCRIBE", link.keys.cluster.process(self._process))
            await client.read_response()

    async def close(self) -> None:
        for client in self._listening:
            await client.disconnect()


async def test_a_member_is_removed_when_its_process_hears_of_it(links: Links) -> None:
    """Or is gone. One that is connected elsewhere alone may go on with another primary."""
    writer = Writer(links, Counters(), None, lambda _: 100, EXPIRY_MS)
    member = "p.feed!a"
    await writer.remove_member("g", member, EXPIRY_MS)  # there is no such process
    process, home = Listener("feed", links), links.routes.shard_of("g")
    try:
        await process.listen(links.routes.owners() - {home})
        with pytest.raises(DeliveryUnknown, match=r"process of p\.feed!a is not connected there"):
            await writer.remove_member("g", member, EXPIRY_MS)
        await process.listen([home])
        await writer.remove_member("g", member, EXPIRY_MS)
    finally:
        await process.close()


async def test_a_cancelled_write_may_have_happened(sender: Sender, proxy: TcpProxy) -> None:
    """It is noted as one of unknown position, and the task's next write asks how far it can be."""
    proxy.blackhole("replies")
    sending = asyncio.ensure_future(sender.group_send())
    await eventually_async(lambda: sender.redis.get(sender.link.keys.seq) == b"1")
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    proxy.heal()
    await sender.send(THEIRS)
    ((_, envelope),) = sender.entries()
    assert envelope.marks is not None
    assert envelope.marks[sender.link.shard].group == 1
