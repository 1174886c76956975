"""Normal channels: many readers in many processes, one delivery.

A message is popped only for a receiver that waits, and popping is destructive, so no other reader
can get it. If the receiver is gone by the time the message arrives, the message is put back: it is
in our hands alone, and moving it is no second delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.buffers import Loss, Mailbox, Parcel
from cluster_layer.connection import Connection
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links
from cluster_layer.reader import Reader
from cluster_layer.running import HEARTBEAT_S
from cluster_layer.session import CommandRefused

BLOCK_S = 1  # how long the shard keeps a read waiting; also how soon a dead link is noticed


class QueueOwner(Protocol):
    """Whoever the items are for."""

    def on_item(self, shard: str, box: Mailbox, now_ms: int, item: bytes) -> None: ...
    def lose(self, reason: Loss, count: int) -> None: ...


class QueueReader(Reader[Connection]):
    """Pops messages of the normal channels that live on one shard."""

    connection_class = Connection

    def __init__(self, link: Link, owner: QueueOwner, expiry_ms: int) -> None:
        self._owner = owner
        self._expiry_ms = expiry_ms
        self._boxes: dict[str, Mailbox] = {}
        self._wanted = asyncio.Event()
        self._blocked_on: frozenset[str] = frozenset()
        self._rotation = 0
        self._when_asked: list[Callable[[], None]] = []
        self._finishing = False
        self._finished = asyncio.Event()
        self._finished.set()
        super().__init__(link)

    def want(self, box: Mailbox) -> None:
        """A receiver waits at this mailbox."""
        self._boxes[box.name] = box
        self._wanted.set()
        self._look_again()

    def unwant(self, box: Mailbox) -> None:
        """A receiver is gone; without another one nothing must be popped."""
        if _demand(box) <= 0:
            self._boxes.pop(box.name, None)
            self._look_again()

    @property
    def can_ask(self) -> bool:
        """Whether the shard is not known to be away."""
        return self._link.trouble is None

    def when_asked(self, callback: Callable[[], None]) -> None:
        """Call it when the shard has been asked once more, for all who wait now.

        Before the read begins to block: who wanted no more than that can go in time.
        """
        self._when_asked.append(callback)

    async def finish(self) -> None:
        """Pop nothing more, and take in what is on its way; bounded by the connection's timeout."""
        self._finishing = True
        self._wanted.set()
        self._look_again()
        if self._connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._connection.timeout_s):
                    await self._finished.wait()

    def keep(self, is_wanted: Callable[[str], bool]) -> None:
        """Pop no more of the channels of which this is not so."""
        for name in [name for name in self._boxes if not is_wanted(name)]:
            del self._boxes[name]
        self._look_again()

    # -- internals

    async def _due(self) -> None:
        await self._wanted.wait()

    async def _read(self, connection: Connection, keys: Keys) -> None:
        self._finished.clear()
        waited_in_vain: frozenset[str] = frozenset()  # for channels that are known to be empty
        try:
            while not self._finishing:
                self.progress += 1
                boxes = self._in_demand()
                if not boxes:
                    self._wanted.clear()
                    await self._wait_wanted(connection)
                    continue
                names = frozenset(box.name for box in boxes)
                # Who waits on finds what comes meanwhile: to ask beforehand is of use once.
                known_empty = names <= waited_in_vain and not self._when_asked
                if known_empty or not await self._pop(connection, keys, boxes):
                    popped = await self._pop_blocking(connection, keys)
                    waited_in_vain = frozenset() if popped else names
        finally:
            self._finished.set()

    async def _wait_wanted(self, connection: Connection) -> None:
        """Sleep without demand, but notice a dead connection, so that it is not the first news."""
        while connection.lost is None:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wanted.wait()
                return
            except TimeoutError:
                await connection.execute(("PING",))
                self.progress += 1

    def _in_demand(self) -> list[Mailbox]:
        """Mailboxes with more receivers than messages, another one first each time."""
        self._boxes = {name: box for name, box in self._boxes.items() if _demand(box) > 0}
        boxes = list(self._boxes.values())
        self._rotation += 1
        start = self._rotation % len(boxes) if boxes else 0
        return boxes[start:] + boxes[:start]

    async def _pop(self, connection: Connection, keys: Keys, boxes: list[Mailbox]) -> bool:
        """Pop for everybody who waits; False: nothing was there."""
        self._when_asked, callbacks = [], self._when_asked
        try:
            found = await self._pop_once(connection, keys, boxes)
        finally:
            for callback in callbacks:
                callback()
        return found

    async def _pop_once(self, connection: Connection, keys: Keys, boxes: list[Mailbox]) -> bool:
        names = [keys.queue(box.name) for box in boxes]
        counts = [_demand(box) for box in boxes]
        command: Command = ("EVALSHA", scripts.QUEUE_POP.sha, len(names), *names, *counts)
        try:
            reply, replication = await connection.execute(command, ("INFO", "replication"))
        except CommandRefused as refusal:
            if "NOSCRIPT" not in refusal.reason:
                raise
            await connection.execute(("SCRIPT", "LOAD", scripts.QUEUE_POP.text))
            return await self._pop_once(connection, keys, boxes)
        connection.require_same_life(replication)
        now_ms, expired, *found = reply
        if expired:
            self._owner.lose(Loss.EXPIRED, expired)
        for box, items in zip(boxes, found, strict=True):
            for item in items:
                self._deliver(box, int(now_ms), item)
        return bool(expired) or any(found)

    async def _pop_blocking(self, connection: Connection, keys: Keys) -> bool:
        """Pop one message once there is one; False: there was none for so long."""
        boxes = {keys.queue(box.name): box for box in self._in_demand()}
        if not boxes or self._finishing:
            return False
        self._blocked_on = frozenset(box.name for box in boxes.values())
        try:
            popped, time, replication = await connection.execute(
                ("BLPOP", *boxes, BLOCK_S),
                ("TIME",),
                ("INFO", "replication"),
                timeout_s=BLOCK_S + connection.timeout_s,
            )
        finally:
            self._blocked_on = frozenset()
        connection.require_same_life(replication)
        if popped is not None:
            now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
            self._deliver(boxes[popped[0]], now_ms, popped[1])
        return popped is not None

    def _deliver(self, box: Mailbox, now_ms: int, item: bytes) -> None:
        self._owner.on_item(self._link.shard, box, now_ms, item)

    def _look_again(self) -> None:
        """Interrupt a blocking read of other channels than those that are wanted now."""
        wanted = frozenset() if self._finishing else frozenset(self._boxes)
        if self._blocked_on and self._blocked_on != wanted:
            self._link.interrupt(self._connection, self._look_again)


def _demand(box: Mailbox) -> int:
    """How many receivers wait for a message that is not here yet: those not woken by one."""
    return len(box.waiters)


async def put_back(
    links: Links, channel: str, parcels: Sequence[Parcel], expiry_ms: int, now: float
) -> None:
    """Return popped messages to the head of their queue, with what is left of their time.

    ShardUnavailable: nothing was put back. DeliveryUnknown. `now` in seconds, as in the parcels.
    """
    items = [
        b"%d%b" % (max(0, round((parcel.deadline - now) * 1000)), _without_deadline(parcel.origin))
        for parcel in parcels
        if parcel.origin is not None
    ]

    def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue(channel),), (expiry_ms, *items)

    await links.run_at_home(channel, scripts.QUEUE_RETURN, build)


def _without_deadline(item: bytes) -> bytes:
    return item[item.index(b":") :]
