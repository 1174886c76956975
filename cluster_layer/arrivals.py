"""From lanes to mailboxes: decode what arrives, put it in order, deliver it.

Everything foreign or malformed ends here: it is dropped and counted, never raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from cluster_layer.buffers import BriefParcel, Loss, Mailbox, Mailboxes, Parcel
from cluster_layer.config import Config
from cluster_layer.controls import Control, fields_of
from cluster_layer.counters import Counters
from cluster_layer.crypto import channel_context, group_context
from cluster_layer.envelope import CONTROL, MESSAGE, Envelope, decode, fingerprint
from cluster_layer.errors import MalformedEnvelope
from cluster_layer.inbox import Entry
from cluster_layer.keys import Keys
from cluster_layer.lanes import GROUP, INBOX, Lane, Lanes
from cluster_layer.names import inbox_name
from cluster_layer.sequencer import Sequencer
from topology.errors import ClusterError

BARRIER_AGAIN_S = 0.05
# A lane that does not answer is cut after one timeout; nothing should ever be held for longer.
HOLD_TIMEOUTS = 10
MAX_OVERTAKEN = 256
MAX_POSITION = 2**63 - 1


class Recipient(Protocol):
    """Whoever the arrivals are for, and whoever knows the connections that they come by."""

    def fan_out(
        self,
        shard: str,
        group: str,
        position: int,
        body: bytes,
        deadline: float,
        exclude: frozenset[str],
        brief: bool,
    ) -> None: ...
    def obey(self, control: Control) -> bool: ...
    def forget(self, box: Mailbox) -> None: ...
    def inboxes_on(self, shard: str) -> Collection[str]: ...
    def has_inbox(self, name: str) -> bool: ...
    def late_s(self, shard: str) -> float: ...
    def on_announcement(self, shard: str, epoch: int) -> None: ...
    def shard_time_ms(self, shard: str) -> float: ...
    def come_to_the_end(self, lane: Lane) -> Awaitable[None]: ...


class _Arrival(NamedTuple):
    """What a lane carries to the point of delivery."""

    envelope: Envelope
    group: str
    position: int
    deadline: float
    data: bytes  # the envelope as it was written


class Arrivals:
    """Takes everything that arrives in a process; belongs to one loop."""

    def __init__(
        self,
        recipient: Recipient,
        mailboxes: Mailboxes,
        config: Config,
        counters: Counters,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._recipient = recipient
        self._mailboxes = mailboxes
        self._counters = counters
        self._prefix = config.prefix
        self._sealed = bool(config.symmetric_encryption_keys)
        self._hold_s = HOLD_TIMEOUTS * config.timeout
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._barriers: dict[Lane, bool] = {}  # running; True: once more
        # Our idea of a shard's clock is early by the time that an answer took, at most the timeout,
        # and by the time that this loop took to look at it.
        self._clock_margin_ms = 2000 * config.timeout
        # Shard, incarnation and fingerprint of what must not be delivered -> the shard's time, ms,
        # until which it can have been written, and ours after which it has expired.
        self._overtaken: dict[tuple[str, str, int], tuple[float, float]] = {}
        self._expiry_s = config.expiry
        self._expiry_ms = round(config.expiry * 1000)
        self.lanes = Sequencer(self._deliver, self._ask, _fingerprint, self._overtake)
        self._group_lanes = Lanes(GROUP)
        self._inbox_lanes = Lanes(INBOX)

    # -- what arrives

    def on_published(self, shard: str, keys: Keys, channel: bytes, payload: bytes) -> None:
        """A message or a control from a shard's subscription."""
        text, _, data = payload.partition(b":")
        lane = self._group_lanes[shard]
        self._counters.shards[shard].received += 1
        try:
            # What has no position of its own comes after all that was published before.
            position = int(text) or self.lanes.received(lane)
            if not 0 <= position <= MAX_POSITION:
                raise MalformedEnvelope("no position")
            envelope = decode(data)
        except (ValueError, MalformedEnvelope):
            self._counters.lose(Loss.MALFORMED)
            return
        kind, ttl_ms, _, marks, body, exclude, _ = envelope
        group = "" if kind == CONTROL else keys.group_of(channel)
        now = time.monotonic()
        deadline = now + ttl_ms / 1000 - self._recipient.late_s(shard)
        if kind == MESSAGE and marks is None and self.lanes.passes(lane, position):
            brief = ttl_ms < self._expiry_ms
            self._recipient.fan_out(shard, group, position, body, deadline, exclude, brief)
        else:
            self._offer(lane, _Arrival(envelope, group, position, deadline, data), now)

    def on_entries(
        self, shard: str, incarnation: str, now_ms: int, entries: Sequence[Entry]
    ) -> None:
        """Entries of inboxes, in the order of their positions; never one twice."""
        lane = self._inbox_lanes[shard]
        if self.lanes.incarnation(lane) != incarnation:
            # The reader may come to another life of the shard before the command link does, and may
            # still hold a reply of the last one when the link has left it.
            self.lanes.open(lane, incarnation)
        self._counters.shards[shard].received += len(entries)
        now = time.monotonic()
        for position, added_ms, data in entries:
            envelope = self._addressed(shard, data)
            if isinstance(envelope, Loss):
                self._counters.lose(envelope)
                continue
            kind, ttl_ms, channel, marks, body, *_ = envelope
            left_ms = ttl_ms - max(0, now_ms - added_ms)
            if left_ms <= 0 and kind == MESSAGE:
                self._expired(str(channel), ttl_ms)
            elif self._overtaken and self._is_overtaken(shard, incarnation, added_ms, data):
                self._counters.lose(Loss.ORDER)
            elif kind == MESSAGE and marks is None and self.lanes.passes(lane, position):
                self._put(str(channel), body, now + left_ms / 1000, ttl_ms)
            else:
                arrival = _Arrival(envelope, "", position, now + left_ms / 1000, data)
                self._offer(lane, arrival, now)

    def _addressed(self, shard: str, data: bytes) -> Envelope | Loss:
        """The envelope in an entry, or why it is not for us."""
        try:
            envelope = decode(data, self._mailboxes.find)
        except MalformedEnvelope:
            return Loss.MALFORMED
        if envelope.channel is None:
            return Loss.MALFORMED
        inbox = inbox_name(envelope.channel)
        if inbox in self._recipient.inboxes_on(shard):
            return envelope
        # We went on without the rest of an inbox that has another home now: nobody waits for it.
        return Loss.ORDER if self._recipient.has_inbox(inbox) else Loss.MALFORMED

    def on_item(self, shard: str, box: Mailbox, now_ms: int, item: bytes) -> bool:
        """An item that was popped for a normal channel; False: nobody waits for it any more."""
        text, _, data = item.partition(b":")
        self._counters.shards[shard].received += 1
        try:
            left_ms = int(text) - now_ms
            envelope = decode(data)
        except (ValueError, MalformedEnvelope):
            self._counters.lose(Loss.MALFORMED)
            return True
        if left_ms <= 0:
            self._counters.lose(Loss.EXPIRED)
            return True
        deadline = time.monotonic() + left_ms / 1000
        parcel = Parcel(envelope.body, self._context(box.name), deadline, item)
        return self._mailboxes.put(box, parcel)

    def expire(self, now: float) -> None:
        """Give up the order of what has been held for too long, and forget what has expired."""
        self.lanes.expire(now - self._hold_s)
        for key in [key for key, (_, at) in self._overtaken.items() if at < now]:
            del self._overtaken[key]

    def clear(self) -> None:
        """Drop everything that is held."""
        for item in self.lanes.drop_held():
            if isinstance(item, asyncio.Future):
                _pass(item)

    # -- barriers

    async def in_order(self, shard: str) -> None:
        """Return when everything that was published on a shard before has been delivered.

        At once if the subscription is cut: then nothing published before can come any more.
        """
        lane = Lane(shard, GROUP)
        try:
            await self._recipient.come_to_the_end(lane)
        except ClusterError:
            return
        if self.lanes.incarnation(lane) is not None:
            passed = self._loop.create_future()
            latest = self.lanes.received(lane)
            self.lanes.offer(lane, latest, None, passed, time.monotonic(), droppable=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._hold_s):
                    await passed

    def _ask(self, lane: Lane) -> None:
        """Find out what has been written to a lane until now."""
        if lane in self._barriers:
            self._barriers[lane] = True  # the one under way may have looked too early
            return
        self._barriers[lane] = True
        self._spawn(self._barrier(lane))

    async def _barrier(self, lane: Lane) -> None:
        try:
            while self._barriers[lane]:
                self._barriers[lane] = False
                begun = self.lanes.begin(lane)
                if await self._came_to_the_end(lane):
                    self.lanes.reached(lane, begun)
        finally:
            del self._barriers[lane]

    async def _came_to_the_end(self, lane: Lane) -> bool:
        """Have everything offered that was written to a lane before; False: it was cut."""
        while self.lanes.incarnation(lane) is not None:
            try:
                await self._recipient.come_to_the_end(lane)
            except ClusterError:
                # The lane is about to be cut, or is being set up.
                await asyncio.sleep(BARRIER_AGAIN_S)
            else:
                return True
        return False

    def _overtake(self, lane: Lane, incarnation: str, fingerprint: int) -> None:
        """If this is in an inbox by now, it must not be delivered any more.

        A subscription that is cut brings nothing old.
        """
        if lane.kind == INBOX:
            until_ms = self._recipient.shard_time_ms(lane.shard) + self._clock_margin_ms
            forget_at = time.monotonic() + self._expiry_s
            self._overtaken[lane.shard, incarnation, fingerprint] = (until_ms, forget_at)
            if len(self._overtaken) > MAX_OVERTAKEN:
                self._overtaken.pop(next(iter(self._overtaken)))

    def _is_overtaken(self, shard: str, incarnation: str, added_ms: int, data: bytes) -> bool:
        """The same bytes that are written later are another message."""
        key = (shard, incarnation, fingerprint("", data))
        until_ms, _ = self._overtaken.get(key, (0.0, 0.0))
        return added_ms <= until_ms

    # -- delivery

    def group_context(self, group: str) -> bytes:
        """What a sealed body for this group is bound to; nothing is sealed without keys."""
        return group_context(self._prefix, group) if self._sealed else b""

    def _context(self, channel: str) -> bytes:
        return channel_context(self._prefix, channel) if self._sealed else b""

    def _offer(self, lane: Lane, arrival: _Arrival, now: float) -> None:
        kind, marks, epoch = arrival.envelope.kind, arrival.envelope.marks, arrival.envelope.epoch
        if epoch > self.lanes.epoch:
            self._recipient.on_announcement(lane.shard, epoch)
        taken = self.lanes.offer(
            lane, arrival.position, marks, arrival, now, droppable=kind != CONTROL, epoch=epoch
        )
        if not taken:
            self._counters.lose(Loss.ORDER)

    def _deliver(self, lane: Lane, arrival: _Arrival | asyncio.Future[None]) -> None:
        if isinstance(arrival, asyncio.Future):
            _pass(arrival)
            return
        envelope = arrival.envelope
        if envelope.kind == CONTROL:
            fields = fields_of(envelope.body)
            if not self._recipient.obey(Control(lane, arrival.position, envelope.channel, fields)):
                self._counters.lose(Loss.MALFORMED)
        elif lane.kind == GROUP:
            self._recipient.fan_out(
                lane.shard,
                arrival.group,
                arrival.position,
                envelope.body,
                arrival.deadline,
                envelope.exclude,
                envelope.ttl_ms < self._expiry_ms,
            )
        else:
            self._put(str(envelope.channel), envelope.body, arrival.deadline, envelope.ttl_ms)

    def _put(self, channel: str, body: bytes, deadline: float, ttl_ms: int) -> None:
        box = self._mailboxes.find(channel) or self._mailboxes.open(channel)
        kind = Parcel if ttl_ms >= self._expiry_ms else BriefParcel
        self._mailboxes.put(box, kind(body, self._context(channel), deadline))

    def _expired(self, channel: str, ttl_ms: int) -> None:
        """A message expired before it was taken: its channel was not read, or this process."""
        self._counters.lose(Loss.EXPIRED)
        box = self._mailboxes.find(channel)
        brief = ttl_ms < self._expiry_ms  # that says nothing about who reads
        if box is not None and not (box.parcels or box.waiters or brief):
            self._recipient.forget(box)


def _fingerprint(item: _Arrival | asyncio.Future[None]) -> int:
    """What the writer of an item calls it; that of a barrier is nobody's."""
    return -1 if isinstance(item, asyncio.Future) else fingerprint(item.group, item.data)


def _pass(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
