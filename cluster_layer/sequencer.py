"""Holds a marked message back until what its writer wrote before it has been delivered.

Where the sequencer can't know whether that is here, it asks for a *barrier*: a read to the end of
the lane. A mark names a position that existed before the marked message was written, so waiting
follows causality and cannot go round in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from cluster_layer.held import ANYWHERE, Held, LaneState, Need, named_in
from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import MAX_TRAIL, Mark

MAX_FORMER: Final = 4  # lives of a lane that are remembered


class Begun(NamedTuple):
    """What was known of a lane when a barrier began."""

    incarnation: str
    serial: int
    position: int
    widened: int


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
        self._widened: dict[Lane, int] = {}  # that bring more than before -> for the n-th time
        self._widenings = 0
        self._lanes: dict[tuple[Lane, str], LaneState] = {}
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

    def widen(self, lane: Lane) -> None:
        """One more inbox is read from now on: what it holds may be behind what has arrived.

        Until a barrier is through, nobody knows that anything written there has been delivered.
        """
        self._widenings += 1
        self._widened[lane] = self._widenings
        if self._is_waited_for(lane):
            self._ask(lane)

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
        self._lanes.setdefault((lane, incarnation), LaneState()).cut = False
        if self._is_waited_for(lane):
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
        if lane in self._widened:
            state.received = 0  # of none of its positions is it known that all below has arrived
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

        `epoch` is that of its marks. Positions on one lane never fall, except when it is widened;
        an item without one of its own has the latest. What is not droppable, as the changes of
        memberships that are learnt after a cut, is never too late.
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
            held = Held(position, needs, item, now, self._serial)
            if early:
                held.epoch, held.marks = epoch, marks
            state.hold(held)
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
        position = max(positions, default=0)
        return Begun(incarnation, self._serial, position, self._widened.get(lane, 0))

    def reached(self, lane: Lane, begun: Begun) -> None:
        """A barrier is through: everything that was written before it began has been offered."""
        incarnation = self._incarnations.get(lane)
        if incarnation is None:
            return
        state = self._lanes[lane, incarnation]
        if begun.incarnation == incarnation:  # positions begin anew with each life
            state.received = max(state.received, begun.position)
            if self._widened.get(lane) == begun.widened:
                del self._widened[lane]
        self._find_doubts(lane, begun.serial)
        if begun.incarnation == incarnation:
            self._see_through(lane, begun.serial)
        self._progress()

    # -- internals

    def _all_held(self) -> list[Held]:
        return [held for key in self._blocked for held in self._lanes[key].waiting]

    def _is_waited_for(self, lane: Lane) -> bool:
        return any(need.lane == lane for held in self._all_held() for need in held.needs)

    def _needs(self, lane: Lane, marks: Mapping[str, Mark]) -> list[Need]:
        needs = []
        for need in named_in(marks):
            if need.lane == lane or need.lane not in self._ours:
                continue
            state = self._lanes.get(need[:2])
            if need.lane in self._expected:
                needs.append(need)
                continue
            found: Need | None = need
            if not self._is_open(need):
                found = self._found(need, self._held_on(need[:2]))
                if found is None or need.fingerprint is None:
                    self._set_floor(need)
            elif state is not None and (state.received < need.position or self._is_widened(need)):
                self._ask(need.lane)
            if found is not None and not self._is_satisfied(found):
                needs.append(found)
        return needs + [need for need in self._earlier_lives(marks) if need.lane != lane]

    def _earlier_lives(self, marks: Mapping[str, Mark]) -> Iterator[Need]:
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
                    yield Need(lane, str(ours), ANYWHERE)

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
                found: Need | None = need
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

    def _found(self, need: Need, positions: Mapping[int, int]) -> Need | None:
        """A doubt's place among these; a need with a place is left as it is."""
        if need.fingerprint is None:
            return need
        position = positions.get(need.fingerprint)
        return None if position is None else Need(need.lane, need.incarnation, position)

    def _is_open(self, need: Need) -> bool:
        return self._incarnations.get(need.lane) == need.incarnation

    def _is_widened(self, need: Need) -> bool:
        return need.lane in self._widened and self._is_open(need)

    def _is_satisfied(self, need: Need) -> bool:
        if need.lane in self._expected or self._is_widened(need):
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

    def _is_due(self, lane: Lane, held: Held) -> bool:
        if held.epoch > self.epoch:
            return False
        if held.marks is not None:
            marks, held.marks = held.marks, None
            held.needs = self._needs(lane, marks)
        return all(map(self._is_satisfied, held.needs))

    def _set_floor(self, need: Need) -> None:
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
