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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

INBOX: Final = "inbox"
GROUP: Final = "group"

MAX_TRAIL: Final = 64  # shards; the oldest are forgotten first
MAX_FORMER: Final = 4  # lives of a lane that are remembered
MAX_DOUBTS: Final = 16  # per shard; the oldest are forgotten first

# Of what may be anywhere on its lane, or nowhere: beyond every position.
_ANYWHERE: Final = 2**62


class Lane(NamedTuple):
    """One way by which messages arrive in order."""

    shard: str
    kind: str


class Lanes(dict[str, Lane]):
    """The lanes of one kind by shard, each made once: every message asks for one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, shard: str) -> Lane:
        lane = self[shard] = Lane(shard, self._kind)
        return lane


class Doubt(NamedTuple):
    """A write of unknown outcome, which has no position: only its reader can find it."""

    kind: str  # of its lane
    fingerprint: int


class Mark(NamedTuple):
    """Positions and writes on one life of one shard after which a message may be delivered."""

    incarnation: str
    inbox: int | None
    group: int | None
    doubts: tuple[Doubt, ...] = ()


_Entry: TypeAlias = tuple[str, int | None, int | None, float, tuple[Doubt, ...], int, float]
_NEVER: Final = float("-inf")


class Trail:
    """Where a task wrote lately; immutable. Times are seconds of a monotonic clock.

    It is looked at and renewed with every write, so an entry is a bare tuple: shard ->
    (incarnation, position in inboxes or None, position of publications or None, time, doubts, epoch
    of the topology by which the inbox was chosen, time of the last write to an earlier life).
    """

    __slots__ = ("_written", "uncertain")

    def __init__(
        self, written: Mapping[str, _Entry] | None = None, *, uncertain: bool = False
    ) -> None:
        """`uncertain`: it holds doubts."""
        self._written = written or {}
        self.uncertain = uncertain

    def __len__(self) -> int:
        return len(self._written)

    def after(
        self, lane: Lane, incarnation: str, position: int, now: float, epoch: int = 0
    ) -> Trail:
        """The trail after a write to this lane, by routes of this epoch.

        It ends all doubts about earlier ones there.
        """
        shard, kind = lane
        inbox = group = None
        inbox_epoch = epoch
        former = _NEVER
        doubts: tuple[Doubt, ...] = ()
        previous = self._written.get(shard)
        if previous is not None and previous[0] != incarnation:
            former = previous[3]
        elif previous is not None:
            _, inbox, group, _, doubts, inbox_epoch, former = previous
            if doubts:
                doubts = tuple(doubt for doubt in doubts if doubt.kind != kind)
        if kind == INBOX:
            inbox, inbox_epoch = position, epoch
        else:
            group = position
        return self._with(shard, (incarnation, inbox, group, now, doubts, inbox_epoch, former))

    def in_doubt(
        self, lane: Lane, incarnation: str, fingerprint: int, now: float, epoch: int = 0
    ) -> Trail:
        """The trail after a write to this lane that may have happened.

        It takes no place of an earlier one: if it has not happened, that one is the latest.
        """
        shard, kind = lane
        inbox = group = None
        inbox_epoch = epoch
        former = _NEVER
        doubts: tuple[Doubt, ...] = ()
        previous = self._written.get(shard)
        if previous is not None and previous[0] != incarnation:
            former = previous[3]
        elif previous is not None:
            _, inbox, group, _, doubts, inbox_epoch, former = previous
            if inbox is None and all(doubt.kind != INBOX for doubt in doubts):
                inbox_epoch = epoch
        doubts = (*doubts, Doubt(kind, fingerprint))[-MAX_DOUBTS:]
        return self._with(shard, (incarnation, inbox, group, now, doubts, inbox_epoch, former))

    def uncertain_lanes(self) -> list[Lane]:
        """The lanes to which something was written that may have happened."""
        lanes = (
            Lane(shard, doubt.kind) for shard, entry in self._written.items() for doubt in entry[4]
        )
        return list(dict.fromkeys(lanes))

    def marks(
        self, lane: Lane, now: float, window_s: float, epoch: int = 0
    ) -> dict[str, Mark] | None:
        """What a write to this lane, by routes of this epoch, must not overtake; None: nothing.

        A mark without positions tells of a life whose writes follow those of an earlier one.
        """
        shard, kind = lane
        marks = {}
        for other, (incarnation, inbox, group, at, doubts, chosen, former) in self._written.items():
            # By one topology a channel is always in one inbox; by another it was in another.
            if other == shard or (kind == INBOX and chosen == epoch):
                if kind == INBOX:
                    inbox = None
                else:
                    group = None
                if doubts:
                    doubts = tuple(doubt for doubt in doubts if doubt.kind != kind)
            named = inbox is not None or group is not None or doubts
            if (named and now - at <= window_s) or now - former <= window_s:
                marks[other] = Mark(incarnation, inbox, group, doubts)
        return marks or None

    def epoch_of(self, marks: Mapping[str, Mark]) -> int:
        """The latest epoch by which an inbox of these marks was chosen; 0: they name no inbox.

        A receiver that does not know it yet may not know either that it has an inbox there.
        """
        return max(
            (self._written[s][5] for s, mark in marks.items() if _names_inbox(mark)), default=0
        )

    def _with(self, shard: str, entry: _Entry) -> Trail:
        written = dict(self._written)
        written.pop(shard, None)  # the latest comes last
        if len(written) >= MAX_TRAIL:
            written.pop(next(iter(written)))
        written[shard] = entry
        uncertain = bool(entry[4]) or (
            self.uncertain and any(other[4] for other in written.values())
        )
        return Trail(written, uncertain=uncertain)


def _names_inbox(mark: Mark) -> bool:
    return mark.inbox is not None or any(doubt.kind == INBOX for doubt in mark.doubts)


class _Need(NamedTuple):
    """What must have been delivered first, on one life of one lane.

    A doubt is anywhere until a barrier is through: then it is among what is held there, or is
    nothing to wait for. So is what an earlier life has brought, if the writer's is another one.
    """

    lane: Lane
    incarnation: str
    position: int
    fingerprint: int | None = None

    @property
    def needs_barrier(self) -> bool:
        return self.position == _ANYWHERE


class Begun(NamedTuple):
    """What was known of a lane when a barrier began."""

    incarnation: str
    serial: int
    position: int


@dataclass(slots=True, eq=False)
class _Held:
    position: int
    needs: list[_Need]
    item: Any
    since: float
    serial: int
    fingerprint: int | None = None  # once somebody has asked for it
    #: Until this epoch is known, what the marks stand for here is not.
    epoch: int = 0
    marks: Mapping[str, Mark] | None = None


class _LaneState:
    """One life of one lane. It outlives a cut for as long as it holds messages."""

    __slots__ = ("cut", "received", "waiting")

    def __init__(self) -> None:
        self.cut = False
        self.received = 0
        self.waiting: deque[_Held] = deque()

    def lacks(self, position: int) -> bool:
        """Whether something up to this position may still arrive, or be held."""
        if not self.cut and self.received < position:
            return True
        return bool(self.waiting) and self.waiting[0].position <= position


class Sequencer:
    """Holds messages back until what their writers wrote before has been delivered.

    `deliver(lane, item)` is called in an order that P3 allows; `ask(lane)` requests a barrier of a
    lane, which is answered by `begin` and `reached`. `fingerprint(item)` is what a writer calls it
    that does not know its position. `overtaken(lane, incarnation, fingerprint)` tells that this,
    if it has been written to a lane until now, must not be delivered any more. `epoch` is that of
    the topology by which lanes are open or expected; what is marked by a later one waits for it.
    """

    def __init__(
        self,
        deliver: Callable[[Lane, Any], None],
        ask: Callable[[Lane], None],
        fingerprint: Callable[[Any], int],
        overtaken: Callable[[Lane, str, int], None] = lambda _lane, _incarnation, _print: None,
    ) -> None:
        self._deliver = deliver
        self._ask = ask
        self._fingerprint = fingerprint
        self._overtaken = overtaken
        self._incarnations: dict[Lane, str] = {}  # of the lanes that are connected
        self._ours: set[Lane] = set()  # that are, were or will be connected
        self._expected: set[Lane] = set()  # that are about to be, for the first time
        self._lanes: dict[tuple[Lane, str], _LaneState] = {}
        self._floors: dict[tuple[Lane, str], int] = {}
        self._former: dict[Lane, list[str]] = {}  # lives that ours has nothing more to tell of
        self._foreign: dict[Lane, dict[str, int]] = {}  # others -> the first message that named it
        self._blocked: dict[tuple[Lane, str], None] = {}
        self._serial = 0
        self.epoch = 0

    # -- lanes

    def learn(self, epoch: int) -> None:
        """The lanes are those of this epoch's topology now."""
        if epoch > self.epoch:
            self.epoch = epoch
            self._progress()

    def expect(self, lane: Lane) -> None:
        """Messages may be waiting for us on this lane, which is about to be connected."""
        if lane not in self._ours:
            self._ours.add(lane)
            self._expected.add(lane)

    def open(self, lane: Lane, incarnation: str) -> None:
        """The lane is connected to this incarnation."""
        known = self._incarnations.get(lane)
        if known == incarnation:
            return
        if known is not None:
            self.close(lane)
        self._ours.add(lane)
        self._expected.discard(lane)
        self._incarnations[lane] = incarnation
        self._lanes.setdefault((lane, incarnation), _LaneState()).cut = False
        if any(need.lane == lane for held in self._all_held() for need in held.needs):
            self._ask(lane)
            self._progress()

    def close(self, lane: Lane) -> None:
        """The lane is cut: what it holds goes on waiting, but nobody waits for what is to come."""
        self._expected.discard(lane)
        incarnation = self._incarnations.pop(lane, None)
        if incarnation is None:
            self._progress()
            return
        key = (lane, incarnation)
        self._note_former(lane, incarnation)
        self._foreign.pop(lane, None)
        state = self._lanes[key]
        state.cut = True
        self._drop_ends(lane, self._serial)
        held_here = self._held_on(key)
        for held in self._all_held():
            for need in held.needs:
                found = self._found(need, held_here)
                if need[:2] == key and (found is None or found.position > state.received):
                    self._set_floor(need)
        self._find_doubts(lane, self._serial)
        if not state.waiting:
            del self._lanes[key]
        self._progress()

    def incarnation(self, lane: Lane) -> str | None:
        """The incarnation that the lane is connected to; None: it is cut."""
        return self._incarnations.get(lane)

    def positions(self) -> dict[tuple[Lane, str], int]:
        """(lane, incarnation) -> the highest position that has arrived, for all that are open."""
        return {key: self._lanes[key].received for key in self._incarnations.items()}

    def received(self, lane: Lane) -> int:
        """The highest position that has arrived on a connected lane."""
        return self._lanes[lane, self._incarnations[lane]].received

    # -- messages

    def passes(self, lane: Lane, position: int) -> bool:
        """`offer` of a message without marks while nothing is held, which is nearly always.

        True: it has been taken, the caller delivers it now. False: it has to be offered.
        """
        if self._blocked or self._floors:
            return False
        state = self._lanes[lane, self._incarnations[lane]]
        if position > state.received:
            state.received = position
        return True

    def offer(
        self,
        lane: Lane,
        position: int,
        marks: Mapping[str, Mark] | None,
        item: Any,
        now: float,
        *,
        droppable: bool = True,
        epoch: int = 0,
    ) -> bool:
        """Take an item that has arrived; False: it came too late to be delivered in order.

        `epoch` is that of its marks. Positions on one lane never fall; an item without one of its
        own has the latest. What is not droppable, as the changes of memberships that are learnt
        after a cut, is never too late.
        """
        key = (lane, self._incarnations[lane])
        state = self._lanes[key]
        state.received = max(state.received, position)
        in_time = not droppable or position > self._floors.get(key, -1)
        early = epoch > self.epoch
        needs = self._needs(lane, marks) if in_time and marks and not early else []
        if in_time and not (early or needs or state.waiting or self._is_behind(key)):
            self._deliver(lane, item)
        elif in_time:
            self._serial += 1
            held = _Held(position, needs, item, now, self._serial)
            if early:
                held.epoch, held.marks = epoch, marks
            state.waiting.append(held)
            self._blocked[key] = None
        if self._blocked:
            self._progress()
        return in_time

    def expire(self, before: float) -> int:
        """Deliver what is held since before this time; how many messages gave up their order.

        The one that came first goes first, and whatever waited for it alone follows in order.
        """
        given_up = 0
        while self._blocked:
            key = min(self._blocked, key=lambda key: self._lanes[key].waiting[0].since)
            waiting = self._lanes[key].waiting
            if waiting[0].since >= before:
                break
            held = waiting.popleft()
            self.epoch = max(self.epoch, held.epoch)  # it will not be waited for again
            for need in held.needs:
                if self._is_open(need):
                    self._set_floor(need)
            self._deliver(key[0], held.item)
            given_up += 1
            self._progress()
        return given_up

    def drop_held(self) -> list[Any]:
        """Forget every message that is held; returns the items."""
        items = [held.item for held in self._all_held()]
        for key in self._blocked:
            self._lanes[key].waiting.clear()
        self._progress()
        return items

    # -- barriers

    def begin(self, lane: Lane) -> Begun:
        """A barrier is about to be made: what `reached` has to be told when it is through."""
        incarnation = self._incarnations.get(lane, "")
        needs = (need for held in self._all_held() for need in held.needs)
        positions = (
            need.position
            for need in needs
            if need[:2] == (lane, incarnation) and not need.needs_barrier
        )
        return Begun(incarnation, self._serial, max(positions, default=0))

    def reached(self, lane: Lane, begun: Begun) -> None:
        """A barrier is through: everything that was written before it began has been offered."""
        incarnation = self._incarnations.get(lane)
        if incarnation is None:
            return
        state = self._lanes[lane, incarnation]
        if begun.incarnation == incarnation:  # positions begin anew with each life
            state.received = max(state.received, begun.position)
        self._find_doubts(lane, begun.serial)
        if begun.incarnation == incarnation:
            self._see_through(lane, begun.serial)
        self._progress()

    # -- internals

    def _all_held(self) -> list[_Held]:
        return [held for key in self._blocked for held in self._lanes[key].waiting]

    def _needs(self, lane: Lane, marks: Mapping[str, Mark]) -> list[_Need]:
        needs = []
        for need in _named_in(marks):
            if need.lane == lane or need.lane not in self._ours:
                continue
            state = self._lanes.get(need[:2])
            if need.lane in self._expected:
                needs.append(need)
                continue
            found: _Need | None = need
            if not self._is_open(need):
                found = self._found(need, self._held_on(need[:2]))
                if found is None or need.fingerprint is None:
                    self._set_floor(need)
            elif state is not None and state.received < need.position:
                self._ask(need.lane)
            if found is not None and state is not None and state.lacks(found.position):
                needs.append(found)
        return needs + [need for need in self._earlier_lives(marks) if need.lane != lane]

    def _earlier_lives(self, marks: Mapping[str, Mark]) -> Iterator[_Need]:
        """The ends of lives that we are connected to, of which a writer has seen the end.

        What it wrote to them before may still come: we see the end later.
        """
        for shard, mark in marks.items():
            for kind in (INBOX, GROUP):
                lane = Lane(shard, kind)
                ours = self._incarnations.get(lane)
                if ours in (None, mark.incarnation):
                    continue
                if mark.incarnation not in self._former.get(lane, ()):
                    self._foreign.setdefault(lane, {}).setdefault(mark.incarnation, self._serial)
                    self._ask(lane)
                    yield _Need(lane, str(ours), _ANYWHERE)

    def _see_through(self, lane: Lane, serial: int) -> None:
        """All that our life had brought when these messages came has arrived.

        What of it is held goes first, if it can; waiting for it might go round in circles.
        """
        foreign = self._foreign.get(lane, {})
        for incarnation in [life for life, first in foreign.items() if first < serial]:
            del foreign[incarnation]
            self._note_former(lane, incarnation)
        key = (lane, self._incarnations[lane])
        if key in self._blocked:
            self._advance(key)
        self._drop_ends(lane, serial)

    def _drop_ends(self, lane: Lane, serial: int) -> None:
        for held in self._all_held():
            if held.serial <= serial:
                held.needs = [
                    need
                    for need in held.needs
                    if need.lane != lane or not need.needs_barrier or need.fingerprint is not None
                ]

    def _note_former(self, lane: Lane, incarnation: str) -> None:
        self._former[lane] = [*self._former.get(lane, ()), incarnation][-MAX_FORMER:]

    def _find_doubts(self, lane: Lane, serial: int) -> None:
        """What messages up to this serial number doubted has arrived on this lane, or never will.

        What has arrived and is not held has been delivered: that need not be waited for.
        """
        on: dict[tuple[Lane, str], dict[int, int]] = {}
        for held in self._all_held():
            if held.serial > serial or all(need.fingerprint is None for need in held.needs):
                continue
            needs = []
            for need in held.needs:
                found: _Need | None = need
                if need.lane == lane and need.fingerprint is not None:
                    key = need[:2]
                    if key not in on:
                        on[key] = self._held_on(key)
                    found = self._found(need, on[key])
                if found is not None:
                    needs.append(found)
            held.needs = needs

    def _held_on(self, key: tuple[Lane, str]) -> dict[int, int]:
        """Fingerprint -> position of what a lane holds; of several that are alike, the first.

        They are the same message to the same readers, whoever wrote them.
        """
        state = self._lanes.get(key)
        positions: dict[int, int] = {}
        for held in state.waiting if state is not None else ():
            if held.fingerprint is None:
                held.fingerprint = self._fingerprint(held.item)
            positions.setdefault(held.fingerprint, held.position)
        return positions

    def _found(self, need: _Need, positions: Mapping[int, int]) -> _Need | None:
        """A doubt's place among these; a need with a place is left as it is."""
        if need.fingerprint is None:
            return need
        position = positions.get(need.fingerprint)
        return None if position is None else _Need(need.lane, need.incarnation, position)

    def _is_open(self, need: _Need) -> bool:
        return self._incarnations.get(need.lane) == need.incarnation

    def _is_satisfied(self, need: _Need) -> bool:
        if need.lane in self._expected:
            return False
        state = self._lanes.get(need[:2])
        return state is None or not state.lacks(need.position)

    def _is_behind(self, key: tuple[Lane, str]) -> bool:
        """Whether an earlier life of the same lane holds messages: they come first."""
        for other in self._blocked:
            if other == key:
                return False
            if other[0] == key[0]:
                return True
        return False

    def _progress(self) -> None:
        moved = True
        while moved and self._blocked:
            moved = False
            for key in list(self._blocked):
                moved = self._advance(key) or moved

    def _advance(self, key: tuple[Lane, str]) -> bool:
        state = self._lanes[key]
        moved = False
        if self._is_behind(key):
            return False
        while state.waiting and self._is_due(key[0], state.waiting[0]):
            self._deliver(key[0], state.waiting.popleft().item)
            moved = True
        if not state.waiting:
            del self._blocked[key]
            moved = True
            if state.cut:
                del self._lanes[key]
        return moved

    def _is_due(self, lane: Lane, held: _Held) -> bool:
        if held.epoch > self.epoch:
            return False
        if held.marks is not None:
            marks, held.marks = held.marks, None
            held.needs = self._needs(lane, marks)
        return all(map(self._is_satisfied, held.needs))

    def _set_floor(self, need: _Need) -> None:
        """What turns up at or below this position later would be out of order: it is dropped."""
        if need.fingerprint is not None:
            # It was settled before the message that names it was sent: it is not ahead of now.
            self._overtaken(need.lane, need.incarnation, need.fingerprint)
            return
        if need.needs_barrier:
            return  # nobody knows how far it went
        key = (need.lane, need.incarnation)
        self._floors[key] = max(need.position, self._floors.pop(key, -1))
        if len(self._floors) > 4 * MAX_TRAIL:
            self._floors.pop(next(iter(self._floors)))


def _named_in(marks: Mapping[str, Mark]) -> Iterator[_Need]:
    for shard, mark in marks.items():
        if mark.inbox is not None:
            yield _Need(Lane(shard, INBOX), mark.incarnation, mark.inbox)
        if mark.group is not None:
            yield _Need(Lane(shard, GROUP), mark.incarnation, mark.group)
        for kind, fingerprint in mark.doubts:
            yield _Need(Lane(shard, kind), mark.incarnation, _ANYWHERE, fingerprint)
