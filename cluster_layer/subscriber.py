"""One subscription connection per shard: groups' messages, membership controls, flushes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Protocol

from cluster_layer.connection import Connection
from cluster_layer.controls import number
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link
from cluster_layer.reader import Reader
from cluster_layer.running import HEARTBEAT_S

logger = logging.getLogger("cluster_layer")

Publication = tuple[bytes, bytes]  # pub/sub channel and payload

# Names per SUBSCRIBE when thousands are registered again: other clients get their turn in between.
SUBSCRIBE_BATCH = 500


class SubscriberConnection(Connection):
    """A connection in subscribe mode: pushes instead of replies."""

    def __init__(self, shard: str, timeout_s: float) -> None:
        super().__init__(shard, timeout_s)
        self.on_message: Callable[[bytes, bytes], None] | None = None
        self._subscribing: deque[tuple[list[int], asyncio.Future[None], float]] = deque()
        self._pings: deque[tuple[asyncio.Future[None], float]] = deque()

    def subscribe(self, channels: list[bytes]) -> asyncio.Future[None]:
        """Done when the shard has confirmed all of them. DeliveryUnknown if it is lost before."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._push_command(("SUBSCRIBE", *channels), future):
            self._subscribing.append(([len(channels)], future, self._deadline()))
        return future

    def unsubscribe(self, channel: bytes) -> None:
        self._push_command(("UNSUBSCRIBE", channel), None)

    def barrier(self) -> asyncio.Future[None]:
        """Done when everything published before this call has been handed to `on_message`."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._push_command(("PING",), future):
            self._pings.append((future, self._deadline()))
        return future

    @property
    def busy(self) -> bool:
        return super().busy or bool(self._subscribing or self._pings)

    def close(self, reason: str = "closed") -> None:
        if self.lost is not None:
            return
        super().close(reason)
        waiting = [future for _, future, _ in self._subscribing] + [f for f, _ in self._pings]
        for future in waiting:
            if not future.done():
                future.set_exception(DeliveryUnknown(self.shard, reason))
                future.exception()  # a heartbeat's has no other reader

    def _push_command(self, command: tuple[Any, ...], future: asyncio.Future[None] | None) -> bool:
        if self.lost is None:
            self._batch.add_unanswered(command)
            self.write_soon()
            return True
        if future is not None:
            future.set_exception(ShardUnavailable(self.shard, self.lost))
        return False

    def _deadline(self) -> float:
        return monotonic() + self.timeout_s

    def _overdue(self, now: float) -> bool:
        subscribing, pings = self._subscribing, self._pings
        return (
            super()._overdue(now)
            or bool(subscribing and subscribing[0][2] < now)
            or bool(pings and pings[0][1] < now)
        )

    def _on_reply(self, reply: Any) -> None:
        if self.on_message is None:
            super()._on_reply(reply)
            return
        if not isinstance(reply, list):
            self.close(f"refused: {reply}")
            return
        kind = reply[0]
        if kind == b"message":
            self.on_message(reply[1], reply[2])
        elif kind == b"subscribe":
            left, future, _ = self._subscribing[0]
            left[0] -= 1
            if not left[0]:
                self._subscribing.popleft()
                _resolve(future)
        elif kind == b"pong":
            _resolve(self._pings.popleft()[0])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Subscribed(Protocol):
    """Whoever a subscriber works for."""

    process_id: str

    def groups_on(self, shard: str) -> Iterable[str]: ...
    def on_published(self, shard: str, keys: Keys, channel: bytes, payload: bytes) -> None: ...
    def on_subscription(self, shard: str, incarnation: str | None) -> None: ...
    def last_position(self, shard: str, incarnation: str) -> int | None: ...
    def on_missed(self, shard: str, publications: int) -> None: ...
    def on_announcement(self, shard: str, epoch: int) -> None: ...


class Subscriber(Reader[SubscriberConnection]):
    """Keeps this process subscribed on one shard to whatever its owner wants."""

    connection_class = SubscriberConnection

    def __init__(self, link: Link, owner: Subscribed) -> None:
        self._owner = owner
        self._keys = link.keys
        self._entered: SubscriberConnection | None = None
        self._attempt: asyncio.Future[SubscriberConnection] = link.loop.create_future()
        self._tried = True  # whether an attempt has been made since it was last connected
        self._refusal: str | None = None  # why the last attempt failed, while there is no other
        self._was_subscribed = False
        self._held: list[Publication] | None = None
        self._tick_at = monotonic()
        super().__init__(link)

    @property
    def late_s(self) -> float:
        """By how much this loop is behind: what arrives now may have been sent so long ago."""
        return max(0.0, monotonic() - self._tick_at - 2 * HEARTBEAT_S)

    async def subscribe(self, groups: Sequence[str]) -> None:
        """Return when the shard has confirmed all. ShardUnavailable, DeliveryUnknown."""
        connection = await self._ready()
        await self._subscribe(connection, [self._keys.group(group) for group in groups])

    def unsubscribe(self, group: str) -> None:
        if self._entered is not None:
            self._entered.unsubscribe(self._keys.group(group))

    async def entered(self) -> None:
        """Return when it is subscribed to everything. ShardUnavailable: it can't be."""
        await self._ready()

    async def barrier(self) -> None:
        """Return when all that was published before has been handed over. DeliveryUnknown."""
        connection = await self._ready()
        await connection.barrier()

    def stop(self) -> asyncio.Task[None]:
        self._failed(ShardUnavailable(self._link.shard, "closed"))
        return super().stop()

    # -- internals

    async def _ready(self) -> SubscriberConnection:
        if self._entered is not None:
            return self._entered
        if self._refusal is not None:
            raise ShardUnavailable(self._link.shard, self._refusal)
        try:
            async with asyncio.timeout(self._link.settings.timeout_s):
                return await asyncio.shield(self._attempt)
        except TimeoutError:
            raise ShardUnavailable(self._link.shard, "not subscribed") from None

    async def _read(self, connection: SubscriberConnection, keys: Keys) -> None:
        try:
            await self._enter(connection, keys)
            await self._live(connection)
        finally:
            connection.close()
            self._came_down()

    def _failed(self, error: ShardUnavailable) -> None:
        if self._tried:  # a connection that was lost is tried again first
            self._refusal = error.reason
        self._tried = True
        if not self._attempt.done():
            self._attempt.set_exception(error)
            self._attempt.exception()  # nobody may have waited for it
        self._attempt = self._loop.create_future()

    async def _enter(self, connection: SubscriberConnection, keys: Keys) -> None:
        """Subscribe to everything, then learn which memberships changed meanwhile.

        Messages that arrive before that is known are held: they may be for a member who has left.
        """
        shard, incarnation = self._link.shard, connection.incarnation
        self._keys = keys
        self._tick_at = monotonic()
        self._held = []
        connection.on_message = self._on_message
        self._owner.on_subscription(shard, incarnation)
        cluster = keys.cluster
        ours = [keys.control, cluster.announcements, cluster.process(self._owner.process_id)]
        await connection.subscribe(ours)
        names = [keys.group(group) for group in self._owner.groups_on(shard)]
        await self._subscribe(connection, names)
        await self._count_missed(keys)
        changes = await self._changes(keys)
        self._entered = connection
        self._refusal = None
        self._tried = False
        # Groups that were left while the above went on; who joins meanwhile waits for us.
        for name in set(names).difference(map(keys.group, self._owner.groups_on(shard))):
            connection.unsubscribe(name)
        held, self._held = self._held, None
        for channel, payload in _in_order(changes, held):
            self._owner.on_published(shard, keys, channel, payload)
        if not self._attempt.done():
            self._attempt.set_result(connection)

    async def _subscribe(self, connection: SubscriberConnection, names: Sequence[bytes]) -> None:
        for start in range(0, len(names), SUBSCRIBE_BATCH):
            await connection.subscribe(list(names[start : start + SUBSCRIBE_BATCH]))

    async def _count_missed(self, keys: Keys) -> None:
        """Tell how much was published since this process was last subscribed, if ever."""
        shard = self._link.shard
        last = self._owner.last_position(shard, keys.incarnation)
        if last is not None or self._was_subscribed:
            connection = await self._link.ready()
            latest = int(await connection.execute(("GET", keys.seq)) or 0)
            heard = {number(payload.partition(b":")[0]) for _, payload in self._held or ()}
            heard = {position for position in heard if (last or 0) < position <= latest}
            self._owner.on_missed(shard, max(0, latest - (last or 0) - len(heard)))
        self._was_subscribed = True

    async def _changes(self, keys: Keys) -> list[Publication]:
        """The membership log since the last position that was seen."""
        position = self._owner.last_position(self._link.shard, keys.incarnation)
        if position is None:
            return []  # the first time on this life of the shard: nobody knew us before
        connection = await self._link.ready()
        entries = await connection.execute(("ZRANGEBYSCORE", keys.log, f"({position}", "+inf"))
        return [(keys.control, entry) for entry in entries]

    async def _live(self, connection: SubscriberConnection) -> None:
        while await connection.stays(HEARTBEAT_S):
            self._tick_at = monotonic()
            await connection.barrier()
            self.progress += 1
        raise ShardUnavailable(self._link.shard, connection.lost or "lost")

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        cluster = self._keys.cluster
        if channel == cluster.announcements:
            self._owner.on_announcement(self._link.shard, number(payload))
        elif self._held is not None:
            self._held.append((channel, payload))
        else:
            self._owner.on_published(self._link.shard, self._keys, channel, payload)

    def _came_down(self) -> None:
        self._entered = None
        self._held = None
        self._owner.on_subscription(self._link.shard, None)
        if self._attempt.done():
            self._attempt = self._loop.create_future()


def _in_order(changes: list[Publication], held: list[Publication]) -> list[Publication]:
    """Both in the order of their positions; what has none keeps its place among its own.

    A change that was also heard counts once.
    """
    heard = {payload for _, payload in held}
    changes = [change for change in changes if change[1] not in heard]
    numbered: list[tuple[int, int, Publication]] = []
    for rank, publications in enumerate((changes, held)):
        latest = 0
        for publication in publications:
            latest = max(latest, number(publication[1].partition(b":")[0]))
            numbered.append((latest, rank, publication))
    numbered.sort(key=lambda entry: entry[:2])
    return [publication for _, _, publication in numbered]
