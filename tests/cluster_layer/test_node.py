"""The receiving side of a process on a real shard, where its parts meet."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from cluster_layer import scripts
from cluster_layer.buffers import Loss
from cluster_layer.config import Config
from cluster_layer.controls import control
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.envelope import MESSAGE, encode, fingerprint
from cluster_layer.keys import Keys
from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import Doubt, Mark
from cluster_layer.node import Node, NodeState
from cluster_layer.running import LinkSettings
from tests.support.parts import EPOCH, links_to, presence, run_script
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

TIMEOUT_S = 0.5
EXPIRY_MS = 60_000
OURS = "p.1!a"


class Process:
    """A node, and direct access to its shard by the keys that it uses."""

    def __init__(self, url: str, server: RedisServer) -> None:
        self.config = Config.from_dict({"hosts": [url], "prefix": "test", "timeout": TIMEOUT_S})
        self.counters = Counters()
        settings = LinkSettings("test", TIMEOUT_S, TIMEOUT_S)
        self.links = links_to(url, settings=settings, counters=self.counters)
        (self.shard,) = self.links.routes.endpoints()
        self.presence = presence()
        self.state = NodeState("1", self.config, self.counters)
        self.node = Node(
            self.state, self.links, self.config, self.counters, self._on_cancelled, self.presence
        )
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)

    @property
    def keys(self) -> Keys:
        return self.links.to(self.shard).keys

    @property
    def received(self) -> int:
        """How many messages have arrived, delivered or not."""
        return self.counters.shards[self.shard].received

    def group_send(self, body: str) -> None:
        envelope = encode(MESSAGE, EXPIRY_MS, None, None, body.encode())
        keys = (self.keys.members("g"), self.keys.seq)
        arguments = (self.keys.group("g"), envelope)
        run_script(self.redis, scripts.GROUP_SEND, self.keys.cluster, keys, *arguments)

    def kick(self, channel: str) -> None:
        keys = (self.keys.members("g"), self.keys.seq, self.keys.log)
        arguments = (
            channel,
            EXPIRY_MS,
            self.keys.group("g"),
            control("leave", "g", channel, EPOCH),
            0,
        )
        run_script(self.redis, scripts.GROUP_LEAVE, self.keys.cluster, keys, *arguments)

    def send(self, channel: str, body: str, *, after_unknown: bool = False) -> None:
        """`after_unknown`: its writer does not know whether it has written to the group before."""
        marks = {self.shard: Mark(self.keys.incarnation, None, None, (Doubt(GROUP, 1),))}
        envelope = encode(
            MESSAGE, EXPIRY_MS, channel, marks if after_unknown else None, body.encode()
        )
        keys = (self.keys.inbox("p.1!"), self.keys.entries)
        arguments = (100, EXPIRY_MS, envelope)
        run_script(self.redis, scripts.INBOX_APPEND, self.keys.cluster, keys, *arguments)

    def push(self, channel: str, body: str) -> None:
        envelope = encode(MESSAGE, EXPIRY_MS, None, None, body.encode())
        keys = (self.keys.queue(channel),)
        arguments = (100, EXPIRY_MS, envelope)
        run_script(self.redis, scripts.QUEUE_PUSH, self.keys.cluster, keys, *arguments)

    async def receive(self, channel: str) -> str:
        async with asyncio.timeout(20):
            return (await self.node.receivers.receive(channel))[1].body.decode()

    async def close(self) -> None:
        await self.node.close()
        await self.links.close()
        self.redis.close()

    async def _on_cancelled(self, node: Node) -> None:
        assert node is self.node


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def process(proxy: TcpProxy, redis_server: RedisServer) -> AsyncIterator[Process]:
    process = Process(proxy.url, redis_server)
    await process.links.to(process.shard).ready()
    yield process
    await process.close()


async def cancelled(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_messages_come_by_all_three_ways(process: Process) -> None:
    """The inbox, a group, and a normal channel."""
    await process.node.join("g", OURS)
    process.send(OURS, "inbox")
    assert await process.receive(OURS) == "inbox"
    process.group_send("group")
    assert await process.receive("p.1!") == "group"
    process.push("normal", "queue")
    assert await process.receive("normal") == "queue"


async def test_what_is_not_ours_is_dropped_and_counted(process: Process) -> None:
    """Malformed and foreign items of every lane disturb nothing that comes after them."""
    await process.node.join("g", OURS)
    foreign = encode(MESSAGE, EXPIRY_MS, "p.2!other", None, b"x")
    process.redis.xadd(process.keys.inbox("p.1!"), {"m": b"\xc1"})
    process.redis.xadd(process.keys.inbox("p.1!"), {"m": foreign})
    process.redis.publish(process.keys.group("g"), b"no position")
    process.redis.publish(process.keys.group("g"), b"1:\xc1")
    process.redis.rpush(process.keys.queue("normal"), b"nothing", b"%d:\xc1" % 2**52)
    process.send(OURS, "inbox")
    process.push("normal", "queue")
    assert await process.receive(OURS) == "inbox"
    assert await process.receive("normal") == "queue"
    process.group_send("group")
    assert await process.receive(OURS) == "group"
    assert process.counters.lost == {Loss.MALFORMED: 6}


async def test_a_kick_during_a_silence_is_learnt_afterwards(
    process: Process, proxy: TcpProxy
) -> None:
    """Also if the connection is given up while a barrier and a heartbeat wait on it."""
    node = process.node
    await node.join("g", OURS)
    process.group_send("before")
    assert await process.receive(OURS) == "before"
    # The inbox is being read: what is sent now comes without another request.
    await eventually_async(lambda: process.redis.info("clients")["blocked_clients"] >= 1)
    proxy.blackhole("requests")
    received = process.received
    process.send(OURS, "held", after_unknown=True)
    await eventually_async(lambda: process.received > received)
    proxy.blackhole("replies")
    process.kick(OURS)
    await eventually_async(lambda: process.state.positions)
    proxy.cut()
    proxy.heal()
    await eventually_async(lambda: len(node.groups) == 0)
    process.group_send("after")
    process.send(OURS, "last")
    assert [await process.receive(OURS) for _ in range(2)] == ["held", "last"]


async def test_a_subscription_that_comes_up_slowly_comes_up(
    process: Process, proxy: TcpProxy
) -> None:
    """A message that waits for it meanwhile does not disturb it."""
    await process.node.join("g", OURS)
    proxy.delay(0.3, "replies")
    proxy.cut()
    await eventually_async(lambda: process.state.positions)
    process.send(OURS, "marked", after_unknown=True)
    assert await process.receive(OURS) == "marked"
    proxy.delay(0.0)
    receiving = asyncio.ensure_future(process.receive(OURS))
    while not receiving.done():
        # Each may meet a subscription that has to come up once more.
        process.group_send("again")
        await asyncio.wait([receiving], timeout=0.1)
    assert await receiving == "again"


async def test_an_entry_counts_in_the_life_from_which_it_was_read(process: Process) -> None:
    """Its position means nothing in the life that the command link knows of."""
    node, lane = process.node, Lane(process.shard, INBOX)
    process.send(OURS, "one")
    assert await process.receive(OURS) == "one"
    lanes = node._arrivals.lanes
    assert lanes.incarnation(lane) == process.keys.incarnation
    data = encode(MESSAGE, EXPIRY_MS, OURS, None, b"two")
    node.on_entries(process.shard, "next", 0, [(7, 0, data)])
    assert (lanes.incarnation(lane), lanes.received(lane)) == ("next", 7)
    assert await process.receive(OURS) == "two"


async def test_what_was_overtaken_is_dropped_and_nothing_else(process: Process) -> None:
    """Also if the shard's clock is taken for half a second earlier; equal bytes later are new."""
    node, life = process.node, process.keys.incarnation
    lane = Lane(process.shard, INBOX)
    node.receivers.watch_inbox("p.1!")
    overtaken, other = (encode(MESSAGE, EXPIRY_MS, OURS, None, body) for body in (b"1", b"2"))
    node._arrivals._overtake(lane, life, fingerprint("", overtaken))
    now_ms = int(node.shard_time_ms(process.shard))
    node.on_entries(process.shard, life, 0, [(1, now_ms + 500, other)])
    node.on_entries(process.shard, life, 0, [(2, now_ms + 500, overtaken)])
    assert process.counters.lost == {Loss.ORDER: 1}
    node.on_entries(process.shard, life, 0, [(3, now_ms + 60_000, overtaken)])
    assert [await process.receive(OURS) for _ in range(2)] == ["2", "1"]
    node._sweep(time.monotonic() + process.config.expiry + 1)
    node.on_entries(process.shard, life, 0, [(4, now_ms + 500, overtaken)])
    assert await process.receive(OURS) == "1"


async def test_the_log_of_a_shard_s_next_life_is_read_from_its_beginning(
    process: Process,
) -> None:
    """Others may have been there before us, and have stored or kicked members of ours."""
    node, shard = process.node, process.shard
    await node.join("g", OURS)
    first = process.keys.incarnation
    assert node.last_position(shard, first) is None
    node.on_subscription(shard, None)
    node.on_subscription(shard, "next")
    assert (node.last_position(shard, first), node.last_position(shard, "next")) == (None, 0)


async def test_a_channel_that_is_read_is_not_abandoned(process: Process) -> None:
    """One receive was cancelled, and since then there was always a message: nobody had to wait."""
    node = process.node
    await node.join("g", OURS)
    waiting = asyncio.ensure_future(node.receivers.receive(OURS))
    await asyncio.sleep(0)
    await cancelled(waiting)
    process.group_send("one")
    await eventually_async(lambda: process.state.mailboxes.messages == 1)
    assert await process.receive(OURS) == "one"
    node._sweep(time.monotonic() + process.config.expiry + 1)
    assert len(node.groups) == 1


@pytest.mark.parametrize("message", [False, True], ids=["quiet", "unread message"])
async def test_an_abandoned_channel_is_forgotten_with_its_memberships(
    process: Process, message: bool
) -> None:
    """Nobody came back within the expiry after the last receiver was cancelled."""
    node = process.node
    await node.join("g", OURS)
    waiting = asyncio.ensure_future(node.receivers.receive(OURS))
    await asyncio.sleep(0)
    await cancelled(waiting)
    if message:
        process.group_send("unread")
        await eventually_async(lambda: process.state.mailboxes.messages == 1)
    node._sweep(time.monotonic() + process.config.expiry - 1)
    assert len(node.groups) == 1
    node._sweep(time.monotonic() + process.config.expiry + 1)
    assert len(node.groups) == 0
    assert process.state.mailboxes.messages == 0
    assert sum(process.counters.lost.values()) == message
    await eventually_async(lambda: process.redis.pubsub_numsub(process.keys.group("g"))[0][1] == 0)


async def test_a_popped_message_returns_to_its_queue(process: Process) -> None:
    """Its receiver was cancelled in the moment in which it was given the message."""
    node = process.node
    waiting = asyncio.ensure_future(node.receivers.receive("normal"))
    await eventually_async(lambda: process.redis.info("clients")["blocked_clients"] >= 1)
    box = process.state.mailboxes.open("normal")
    process.push("normal", "one")
    while box.waiters:
        await asyncio.sleep(0)
    await cancelled(waiting)
    await eventually_async(lambda: process.redis.llen(process.keys.queue("normal")) == 1)
    assert process.state.mailboxes.messages == 0
    assert await process.receive("normal") == "one"


async def test_closing_returns_what_was_popped(process: Process, redis_server: RedisServer) -> None:
    """A message on its way to a receiver that will never take it is there for other processes."""
    waiting = asyncio.ensure_future(process.node.receivers.receive("normal"))
    await eventually_async(lambda: process.redis.info("clients")["blocked_clients"] >= 1)
    process.push("normal", "one")
    closing = asyncio.ensure_future(process.node.close())
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    await closing
    if isinstance(outcome, BaseException):
        assert process.redis.llen(process.keys.queue("normal")) == 1
    else:
        assert outcome[1].body == b"one"


async def test_a_flush_forgets_everything_that_came(process: Process) -> None:
    """Messages, memberships, and what is still on its way."""
    node = process.node
    await node.join("g", OURS)
    process.group_send("old")
    process.send(OURS, "old")
    await eventually_async(lambda: process.state.mailboxes.messages == 2)
    process.send(OURS, "old")
    await node._controls._flush(process.shard, "token")
    assert process.state.mailboxes.messages == 0
    assert len(node.groups) == 0
    assert process.redis.lrange(process.keys.reply("token"), 0, -1) == [b"1"]
    process.send(OURS, "new")
    assert await process.receive(OURS) == "new"
