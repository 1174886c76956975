"""Writes whose callers do not wait for the shard's answer (``confirm=False``).

A write is queued on its shard's connection, and the caller goes on. What becomes of it is counted,
and what was not written, or may not have been, is told to the gap hook. At most MAX_ON_THEIR_WAY
are on their way per event loop; the next one waits.

Promises are those of confirmed writes but one: no error reaches the caller. In particular order
(P3) holds, see `trails.Unanswered`, and what may have been written is never written again. Nor is
what was refused, for others of the same task may already be behind it; unless it was refused
because the topology has changed: then all that the task has written behind it was refused as well,
and is written again, in its order, where it belongs now (P5).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final

from cluster_layer.connection import Connection
from cluster_layer.counters import Counters
from cluster_layer.errors import ChannelFull, DeliveryUnknown, ShardUnavailable
from cluster_layer.gap_watch import tell
from cluster_layer.gaps import OnGap, unconfirmed
from cluster_layer.lanes import Lane
from cluster_layer.links import Links
from cluster_layer.marks import Trail
from cluster_layer.names import inbox_name
from cluster_layer.running import Redirected
from cluster_layer.session import CommandRefused
from cluster_layer.terms import USUAL, Terms
from cluster_layer.trails import Past, PastCell, Unanswered, settled
from cluster_layer.writer import TrailCell, Writer
from cluster_layer.writes import Publish, Write
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")

# A shard needs some 10 ms for so many. They are also what a task can write before others have
# their turn.
MAX_ON_THEIR_WAY: Final = 1_000
ROOM: Final = MAX_ON_THEIR_WAY // 2  # who waits for room goes on when so few are left
AGAIN_CHECK_S: Final = 0.005  # until the last of a refused stretch has been answered
SETTLING_TIMEOUTS: Final = 3  # until the answer is overdue, until the write can't happen, and one


class _Cohort:
    """The writes between two questions what has become of those until then."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0  # on their way


class _Posted:
    """One write on its way, in the place of the future of its answer."""

    __slots__ = ("_poster", "cohort", "connection", "fence", "unanswered", "write")

    def __init__(
        self, poster: Poster, write: Write, connection: Connection, cohort: _Cohort
    ) -> None:
        self._poster = poster
        self.write = write
        self.connection = connection
        self.cohort = cohort
        self.unanswered: Unanswered | None = None
        self.fence = 0.0  # loop time after which it can't be executed any more

    def done(self) -> bool:
        return False

    def set_result(self, reply: Any) -> None:
        self._poster.on_reply(self, reply)

    def set_exception(self, error: ClusterError) -> None:
        self._poster.on_loss(self, error)


class Poster:
    """Queues writes and finds out what becomes of them; belongs to one loop."""

    def __init__(
        self, writer: Writer, links: Links, counters: Counters, on_gap: OnGap | None
    ) -> None:
        self._writer = writer
        self._links = links
        self._counters = counters
        self._on_gap = on_gap
        self._timeout_s = links.settings.timeout_s
        self._loop = asyncio.get_running_loop()
        self._on_their_way = 0
        self._room: asyncio.Future[None] | None = None  # done when there is some
        self._cohort = _Cohort()  # that of the next write; earlier ones have been asked for
        self._asked_for: dict[_Cohort, asyncio.Future[None]] = {}
        self._in_doubt: defaultdict[str, list[tuple[_Posted, ClusterError]]] = defaultdict(list)
        self._refused_on: dict[Unanswered, list[_Posted]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- writing

    def send(self, channel: str, body: bytes, past: Past, terms: Terms = USUAL) -> Past | None:
        """Queue a message for a channel; the task's past after it. None: not without waiting."""
        trail = self._trail_of(past)
        if trail is None or trail.uncertain:
            return None
        return self._queue(self._writer.message(channel, body, trail, terms), past, trail)

    def group_send(self, group: str, body: bytes, past: Past, terms: Terms = USUAL) -> Past | None:
        """Queue a message for a group; the task's past after it. None: not without waiting."""
        trail = self._trail_of(past)
        if trail is None or trail.uncertain:
            return None
        return self._queue(self._writer.publication(group, body, trail, terms), past, trail)

    async def send_in_turn(
        self, channel: str, body: bytes, cell: PastCell, terms: Terms = USUAL
    ) -> None:
        """Queue a message for a channel as soon as that can be."""
        write = self._writer.message
        await self._in_turn(channel, cell, lambda trail: write(channel, body, trail, terms))

    async def group_send_in_turn(
        self, group: str, body: bytes, cell: PastCell, terms: Terms = USUAL
    ) -> None:
        """Queue a message for a group as soon as that can be."""
        write = self._writer.publication
        await self._in_turn(group, cell, lambda trail: write(group, body, trail, terms))

    async def all_answered(self) -> None:
        """Return when it is known of every write until now what became of it."""
        if self._cohort.left:
            self._asked_for[self._cohort] = self._loop.create_future()
            self._cohort = _Cohort()
        if self._asked_for:
            await asyncio.wait(self._asked_for.values())

    async def close(self) -> None:
        """Wait for what is on its way, as long as its answers may take, and stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLING_TIMEOUTS * self._timeout_s):
                await self.all_answered()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _trail_of(self, past: Past) -> Trail | None:
        """What the next write has to name; None: there is no room for one."""
        if self._on_their_way >= MAX_ON_THEIR_WAY:
            return None
        if isinstance(past, Trail):
            return past
        return past.before if past.on_their_way else past.trail(monotonic())

    def _queue(self, write: Write, past: Past, trail: Trail) -> Past | None:
        link = self._links.to(write.shard)
        connection, lane = link.connection, write.lane
        # A shard that is behind would refuse some of them, and take those that come later.
        if connection is None or link.served != write.epoch:
            return None
        going_on = past if isinstance(past, Unanswered) and past.on_their_way else None
        cohort = self._cohort
        posted = _Posted(self, write, connection, cohort)
        if lane is not None:
            if going_on is None:
                life = link.keys.incarnation
                going_on = Unanswered(trail, lane, write.epoch, connection, life)
            elif not _may_follow(going_on, connection, write):
                return None
            going_on.add(write)
            posted.unanswered = going_on
        self._on_their_way += 1
        cohort.left += 1
        posted.fence = link.post(connection, write, posted)
        return going_on or trail

    async def _in_turn(
        self, name: str, cell: PastCell, write_after: Callable[[Trail], Write]
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                while not await self._queued(name, cell, write_after):
                    pass
        except TimeoutError:
            shard = self._links.routes.shard_of(inbox_name(name))
            reason = f"{self._on_their_way} messages are on their way"
            self._refused(name, ShardUnavailable(shard, reason))
        except ShardUnavailable as error:
            self._refused(name, error)
        except DeliveryUnknown as error:  # of looking at the shard: nothing was queued
            self._refused(name, ShardUnavailable(error.shard, error.reason))

    async def _queued(
        self, name: str, cell: PastCell, write_after: Callable[[Trail], Write]
    ) -> bool:
        """Wait for whatever keeps a write from being queued, and try it."""
        try:
            link = self._links.to(self._links.routes.shard_of(inbox_name(name)))
            await link.ready()
            if link.served != self._links.routes.epoch:
                await link.align()
        except Redirected:
            return False
        if self._on_their_way >= MAX_ON_THEIR_WAY:
            self._room = self._room or self._loop.create_future()
            await asyncio.shield(self._room)
        trail = self._trail_of(cell.past)
        past = None if trail is None else self._queue(write_after(trail), cell.past, trail)
        if past is not None:
            cell.past = past
            return True
        if trail is not None and link.connection is not None:
            certain = TrailCell(await settled(cell.past, SETTLING_TIMEOUTS * self._timeout_s))
            await self._writer.make_certain(certain, certain.trail.uncertain_lanes())
            cell.past = certain.trail
        return False

    # -- what becomes of it

    def on_reply(self, posted: _Posted, reply: Any) -> None:
        write = posted.write
        refusal = None if type(reply) is list else posted.connection.refusal(reply)
        if refusal is not None and _is_of_the_topology(refusal):
            self._write_again(posted)
            return
        if refusal is not None:
            self._refused(write.name, refusal)
            self._finish(posted, None)
            self._spawn(self._remedied(posted, refusal))
            return
        try:
            position = write.accepted(reply, self._counters)
        except ChannelFull as error:
            self._report(write.name, error, "full")
            position = None
        if isinstance(write, Publish) and write.members:
            self._spawn(self._sent_to_members(posted, write, position))
        else:
            self._finish(posted, position)

    def on_loss(self, posted: _Posted, error: ClusterError) -> None:
        """Its connection is lost."""
        shard = posted.write.shard
        if isinstance(error, ShardUnavailable):
            self._refused(posted.write.name, error)
            self._finish(posted, None)
            return
        if shard not in self._in_doubt:
            self._spawn(self._settled(shard))  # begins when all of that connection are here
        self._in_doubt[shard].append((posted, error))

    async def _settled(self, shard: str) -> None:
        """Tell of writes of unknown outcome once they can't happen any more."""
        doubts = self._in_doubt.pop(shard)
        found: dict[Lane | None, tuple[str, int] | None] = {}
        try:
            with contextlib.suppress(Redirected):
                link = self._links.to(shard)
                fence = max(posted.fence for posted, _ in doubts)
                await link.settled(fence, link.keys.incarnation)
            for lane in {posted.write.lane for posted, _ in doubts}:
                if lane is not None:
                    found[lane] = await self._writer.settled_position(lane)
        finally:
            for posted, error in doubts:
                self._counters.shards[shard].unknown += 1
                self._report(posted.write.name, error, "unknown")
                life, position = found.get(posted.write.lane) or ("", None)
                unanswered = posted.unanswered
                if unanswered is None or life != unanswered.incarnation:
                    position = None  # of another life of the shard
                self._finish(posted, position, in_doubt=position is None)

    # -- what the topology has moved

    def _write_again(self, posted: _Posted) -> None:
        """It has to be written where it belongs now, with all that its task wrote behind it."""
        unanswered = posted.unanswered
        if unanswered is None:
            self._spawn(self._written_again([posted], TrailCell(Trail())))
            return
        unanswered.closed = True
        refused = self._refused_on.setdefault(unanswered, [])
        refused.append(posted)
        if len(refused) == 1:
            self._spawn(self._stretch_again(unanswered))

    async def _stretch_again(self, unanswered: Unanswered) -> None:
        """Once all that was on its way with it has been answered too, by the same refusal."""
        refused = self._refused_on[unanswered]
        deadline = monotonic() + SETTLING_TIMEOUTS * self._timeout_s
        while len(refused) < unanswered.on_their_way and monotonic() < deadline:
            await asyncio.sleep(AGAIN_CHECK_S)
        del self._refused_on[unanswered]
        cell = TrailCell(unanswered.before)
        if unanswered.position is not None:
            lane, life, now = unanswered.lane, unanswered.incarnation, monotonic()
            cell.trail = cell.trail.after(lane, life, unanswered.position, now, unanswered.epoch)
        await self._written_again(refused, cell)

    async def _written_again(self, refused: list[_Posted], cell: TrailCell) -> None:
        """One after the other, as confirmed writes are."""
        for posted in refused:
            write = posted.write
            again = self._writer.group_send if isinstance(write, Publish) else self._writer.send
            try:
                await again(write.name, write.body, cell, write.terms)
            except ChannelFull as error:
                self._report(write.name, error, "full")
            except ClusterError as error:  # counted where it happened
                self._report(write.name, error, "unavailable" if error.definite else "unknown")
            finally:
                if posted.unanswered is not None:
                    posted.unanswered.before = cell.trail
                    posted.unanswered.position = None
                self._finish(posted, None)

    async def _sent_to_members(self, posted: _Posted, write: Publish, position: int | None) -> None:
        """A group's message goes to some members one by one; until then it is on its way."""
        unanswered = posted.unanswered
        assert unanswered is not None  # noqa: S101 - groups have lanes
        assert position is not None  # noqa: S101 - the shard has named it
        lane, life, now = unanswered.lane, unanswered.incarnation, monotonic()
        cell = TrailCell(unanswered.before.after(lane, life, position, now, unanswered.epoch))
        try:
            await self._writer.send_to_members(write, cell)
        finally:
            unanswered.before = cell.trail
            self._finish(posted, position)

    async def _remedied(self, posted: _Posted, refusal: CommandRefused) -> None:
        """Do what makes later writes succeed; this one is not tried again."""
        with contextlib.suppress(ClusterError):
            link = self._links.to(posted.write.shard)
            await link.remedied(posted.connection, refusal, posted.write.script)

    def _finish(self, posted: _Posted, position: int | None, *, in_doubt: bool = False) -> None:
        self._on_their_way -= 1
        if posted.unanswered is not None:
            posted.unanswered.answered(posted.write, position, in_doubt=in_doubt)
        if self._room is not None and self._on_their_way <= ROOM:
            self._room.set_result(None)
            self._room = None
        cohort = posted.cohort
        cohort.left -= 1
        if not cohort.left and cohort is not self._cohort:
            self._asked_for.pop(cohort).set_result(None)

    def _refused(self, name: str, error: ShardUnavailable) -> None:
        self._counters.shards[error.shard].refused += 1
        self._report(name, error, "unavailable")

    def _report(self, name: str, error: ClusterError, kind: str) -> None:
        self._counters.unconfirmed[kind] += 1
        tell(self._on_gap, unconfirmed(name, error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the channel layer failed", exc_info=task.exception())


def _may_follow(unanswered: Unanswered, connection: Connection, write: Write) -> bool:
    """Whether a write can go behind these without waiting for their answers."""
    return (
        unanswered.connection is connection
        and unanswered.lane == write.lane
        and unanswered.epoch == write.epoch
        and not unanswered.closed
    )


def _is_of_the_topology(refusal: CommandRefused) -> bool:
    """Whether the shard serves another topology than the writer goes by."""
    return "STALE" in refusal.reason or "AHEAD" in refusal.reason
