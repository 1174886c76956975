"""Order between verbs (promise P3): what one task writes arrives in the order of its writes.

Messages reach a process by two *lanes* per shard: its inbox (a stream) and its subscription
(pub/sub). Each lane keeps order by itself and knows positions: entry ids in the inbox,
publication counters on the subscription. What a task wrote to *other* lanes shortly before is
marked in the envelope: "deliver only after position p of that lane". A task that writes to one
lane alone carries no marks.

Writer's side: `Trail`, an immutable value that a context variable carries. Receiver's side:
`Sequencer`, which holds a marked message until the lanes it names have come as far, and asks for a
*barrier* (a read to the end) where it can't know. A mark names a position that existed before
the marked message was written, so waiting follows causality and cannot go round in circles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

INBOX: Final = "inbox"
GROUP: Final = "group"

# A write of unknown outcome has no position; only a barrier tells that it can't be ahead of us.
UNKNOWN: Final = 2**62

MAX_TRAIL: Final = 64  # shards; the oldest are forgotten first


class Lane(NamedTuple):
    """One way by which messages arrive in order."""

    shard: str
    kind: str


class Mark(NamedTuple):
    """Positions on one life of one shard after which a message may be delivered."""

    incarnation: str
    inbox: int | None
    group: int | None


def entry_position(entry_id: bytes) -> int:
    """A stream entry's id, ``ms-sequence``, as one number that sorts alike."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds) << 20 | min(int(sequence), (1 << 20) - 1)


@dataclass(frozen=True, slots=True)
class _Written:
    mark: Mark
    at: float


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a task wrote lately. Times are seconds of a monotonic clock."""

    written: Mapping[str, _Written] = field(default_factory=dict)

    def after(self, lane: Lane, incarnation: str, position: int, now: float) -> Trail:
        """The trail after a write to this lane."""
        previous = self.written.get(lane.shard)
        mark = previous.mark if previous else Mark(incarnation, None, None)
        if mark.incarnation != incarnation:  # what was written to a dead incarnation is lost
            mark = Mark(incarnation, None, None)
        if lane.kind == INBOX:
            mark = mark._replace(inbox=position)
        else:
            mark = mark._replace(group=position)
        rest = {shard: entry for shard, entry in self.written.items() if shard != lane.shard}
        if len(rest) >= MAX_TRAIL:
            rest.pop(next(iter(rest)))
        return replace(self, written={**rest, lane.shard: _Written(mark, now)})

    def marks(self, lane: Lane, now: float, window_s: float) -> dict[str, Mark] | None:
        """What a write to this lane must not overtake; None: nothing.

        An inbox needs no marks of inboxes: one channel is always in one inbox.
        """
        marks = {}
        for shard, (mark, at) in ((s, (w.mark, w.at)) for s, w in self.written.items()):
            if now - at > window_s:
                continue
            if lane.kind == INBOX:
                mark = mark._replace(inbox=None)
            elif shard == lane.shard:
                mark = mark._replace(group=None)
            if mark.inbox is not None or mark.group is not None:
                marks[shard] = mark
        return marks or None


class _Held(NamedTuple):
    position: int
    needs: list[tuple[Lane, int]]
    item: Any
    since: float


class _LaneState:
    __slots__ = ("incarnation", "received", "waiting")

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.received = 0
        self.waiting: deque[_Held] = deque()


class Sequencer:
    """Holds messages back until what their writers wrote before has been delivered.

    `deliver(lane, item)` is called in an order that P3 allows; `ask(lane)` requests a barrier of a
    lane, which is answered by `reached`.
    """

    def __init__(self, deliver: Callable[[Lane, Any], None], ask: Callable[[Lane], None]) -> None:
        self._deliver = deliver
        self._ask = ask
        self._lanes: dict[Lane, _LaneState] = {}
        self._floors: dict[tuple[Lane, str], int] = {}
        self._blocked: set[Lane] = set()

    def open(self, lane: Lane, incarnation: str) -> None:
        """The lane is connected to this incarnation."""
        state = self._lanes.get(lane)
        if state is None or state.incarnation != incarnation:
            self.close(lane)
            self._lanes[lane] = _LaneState(incarnation)

    def close(self, lane: Lane) -> None:
        """The lane is cut: what it held is delivered, what waits for it need not wait any more."""
        state = self._lanes.pop(lane, None)
        if state is None:
            return
        self._blocked.discard(lane)
        for blocked in self._blocked:
            for held in self._lanes[blocked].waiting:
                for need, position in held.needs:
                    if need == lane and state.received < position:
                        self._set_floor(lane, state.incarnation, position)
        for held in state.waiting:
            self._give_up(held)
            self._deliver(lane, held.item)
        self._progress()

    def offer(
        self, lane: Lane, position: int, marks: Mapping[str, Mark] | None, item: Any, now: float
    ) -> bool:
        """Take a message that has arrived; False: it came too late to be delivered in order.

        Positions on one lane never fall; an item without one of its own has the latest.
        """
        state = self._lanes[lane]
        state.received = max(state.received, position)
        if self._floors and position <= self._floors.get((lane, state.incarnation), -1):
            return False
        if marks is None and not state.waiting:
            self._deliver(lane, item)
            if self._blocked:
                self._progress()
            return True
        state.waiting.append(_Held(position, self._needs(lane, marks or {}), item, now))
        self._blocked.add(lane)
        self._progress()
        return True

    def incarnation(self, lane: Lane) -> str | None:
        """The incarnation that the lane is connected to; None: it is cut."""
        state = self._lanes.get(lane)
        return None if state is None else state.incarnation

    def positions(self) -> dict[tuple[Lane, str], int]:
        """(lane, incarnation) -> the highest position that has arrived, for all that are open."""
        return {(lane, state.incarnation): state.received for lane, state in self._lanes.items()}

    def received(self, lane: Lane) -> int:
        """The highest position that has arrived on the lane."""
        return self._lanes[lane].received

    def reached(self, lane: Lane, position: int) -> None:
        """A barrier is through: everything up to this position has been offered."""
        state = self._lanes.get(lane)
        if state is None:
            return
        state.received = max(state.received, position)
        for blocked in self._blocked:
            for held in self._lanes[blocked].waiting:
                # An unknown outcome is not ahead of us any more, wherever it is.
                held.needs[:] = [
                    (need, state.received if need == lane and at == UNKNOWN else at)
                    for need, at in held.needs
                ]
        self._progress()

    def expire(self, before: float) -> int:
        """Deliver what is held since before this time; how many messages gave up their order."""
        given_up = 0
        for lane in list(self._blocked):
            waiting = self._lanes[lane].waiting
            while waiting and waiting[0].since < before:
                held = waiting.popleft()
                self._give_up(held)
                self._deliver(lane, held.item)
                given_up += 1
        self._progress()
        return given_up

    def needed(self, lane: Lane) -> int:
        """The highest position of this lane that anything waits for; 0: nothing does."""
        needs = (
            position
            for blocked in self._blocked
            for held in self._lanes[blocked].waiting
            for need, position in held.needs
            if need == lane and position != UNKNOWN
        )
        return max(needs, default=0)

    def _needs(self, lane: Lane, marks: Mapping[str, Mark]) -> list[tuple[Lane, int]]:
        needs = []
        for shard, mark in marks.items():
            for kind, position in ((INBOX, mark.inbox), (GROUP, mark.group)):
                need = Lane(shard, kind)
                if position is None or need == lane:
                    continue
                state = self._lanes.get(need)
                if state is None or state.incarnation != mark.incarnation:
                    self._set_floor(need, mark.incarnation, position)
                    continue
                needs.append((need, position))
                if state.received < position:
                    self._ask(need)
        return needs

    def _satisfied(self, need: Lane, position: int) -> bool:
        state = self._lanes.get(need)
        if state is None:
            return True
        if state.received < position:
            return False
        return not state.waiting or state.waiting[0].position > position

    def _progress(self) -> None:
        moved = True
        while moved and self._blocked:
            moved = False
            for lane in list(self._blocked):
                moved = self._advance(lane) or moved

    def _advance(self, lane: Lane) -> bool:
        state = self._lanes.get(lane)
        if state is None:
            self._blocked.discard(lane)
            return False
        moved = False
        while state.waiting and all(self._satisfied(*need) for need in state.waiting[0].needs):
            self._deliver(lane, state.waiting.popleft().item)
            moved = True
        if not state.waiting:
            self._blocked.discard(lane)
        return moved

    def _give_up(self, held: _Held) -> None:
        for need, position in held.needs:
            state = self._lanes.get(need)
            if state is not None and state.received < position:
                self._set_floor(need, state.incarnation, position)

    def _set_floor(self, lane: Lane, incarnation: str, position: int) -> None:
        """What turns up at or below this position later would be out of order: it is dropped.

        Only an inbox can bring old entries: a subscription that was cut has lost them.
        """
        if lane.kind != INBOX or position == UNKNOWN:
            return
        key = (lane, incarnation)
        floor = max(position, self._floors.pop(key, 0))
        self._floors[key] = floor
        if len(self._floors) > 4 * MAX_TRAIL:
            self._floors.pop(next(iter(self._floors)))
