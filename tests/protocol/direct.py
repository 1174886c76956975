"""Messages to an inbox whose slot moves: once, in order, and none lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.protocol.control import (
    NAMES,
    SHARDS,
    Control,
    Faults,
    Rules,
    coordinator_steps,
    crashes,
    learning,
    newest,
    node,
    put,
)
from topology.transitions import Stage


class Mark(NamedTuple):
    """Deliver only after what its writer wrote there."""

    shard: int
    life: int
    position: int


#: What the writer wrote last on each shard.
Trail = tuple[Mark | None, Mark | None]


def mark_of(trail: Trail, shard: int, rules: Rules) -> Mark | None:
    """What a write to this shard must not overtake."""
    return trail[1 - shard] if rules.marks else None


def written(trail: Trail, mark: Mark, rules: Rules) -> Trail:
    kept = trail if rules.whole_trail else (None, None)
    result: Trail = put(kept, mark.shard, mark)
    return result


class Flight(NamedTuple):
    """A write that is decided and on its way."""

    message: int
    known: int
    shard: int
    mark: Mark | None


class Entry(NamedTuple):
    message: int
    mark: Mark | None
    position: int  # from 1


class State(NamedTuple):
    control: Control
    writer: int  # the topology that the writing process knows
    message: int  # the next one to send
    flight: Flight | None
    trail: Trail
    acknowledged: frozenset[int]
    reader: int
    alive: bool
    settled: int | None
    inboxes: tuple[tuple[Entry, ...], tuple[Entry, ...]]
    cursors: tuple[int, int]
    held: tuple[tuple[Entry, ...], tuple[Entry, ...]]  # per shard, in the order of arrival
    floors: tuple[int, int]  # what comes later from below was given up, and is dropped
    delivered: tuple[int, ...]


class Direct:
    """One process writes, the other one reads its inbox."""

    def __init__(self, rules: Rules, faults: Faults, *, messages: int, deaths: int = 0) -> None:
        self.rules, self.messages, self.deaths = rules, messages, deaths
        control = Control.start(faults)
        self.start = State(
            control=control.having("clean"),
            writer=control.doc,
            message=0,
            flight=None,
            trail=(None, None),
            acknowledged=frozenset(),
            reader=control.doc,
            alive=True,
            settled=None,
            inboxes=((), ()),
            cursors=(0, 0),
            held=((), ()),
            floors=(0, 0),
            delivered=(),
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        yield from self._control_steps(state)
        yield from self._writer_steps(state)
        if state.alive:
            yield from self._reader_steps(state)

    def _control_steps(self, state: State) -> Iterator[tuple[str, State]]:
        settled = not state.alive or state.settled == state.control.doc
        control = state.control.having("clean").having("copy")  # there are no members here
        for name, changed in coordinator_steps(control, self.rules, settled=settled):
            yield name, state._replace(control=changed)
        for shard, changed in crashes(state.control):
            yield (
                f"shard {NAMES[shard]} is killed",
                state._replace(
                    control=changed,
                    inboxes=put(state.inboxes, shard, ()),
                    cursors=put(state.cursors, shard, 0),
                    floors=put(state.floors, shard, 0),
                ),
            )

    def _writer_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, control, known in learning(state.control, state.writer, "the writer"):
            yield name, state._replace(control=control, writer=known)
        if state.flight is not None:
            yield from self._arrivals(state, state.flight)
        elif state.message < self.messages:
            shard = node(state.writer).home
            mark = mark_of(state.trail, shard, self.rules)
            flight = Flight(state.message, state.writer, shard, mark)
            yield f"{state.message} is sent to {NAMES[shard]}", state._replace(flight=flight)

    def _arrivals(self, state: State, flight: Flight) -> Iterator[tuple[str, State]]:
        control, shard = state.control, flight.shard
        if control.refuses(shard, flight.known, self.rules):
            writer = newest(state.writer, control.copies[shard])
            yield (
                f"{flight.message} is refused by {NAMES[shard]}",
                state._replace(flight=None, writer=writer),
            )
            return
        position = len(state.inboxes[shard]) + 1
        inbox = (*state.inboxes[shard], Entry(flight.message, flight.mark, position))
        stored = state._replace(
            control=control.written(shard, flight.known, self.rules),
            flight=None,
            message=flight.message + 1,
            inboxes=put(state.inboxes, shard, inbox),
            trail=written(state.trail, Mark(shard, control.lives[shard], position), self.rules),
        )
        known = state.acknowledged | {flight.message}
        yield f"{flight.message} is stored on {NAMES[shard]}", stored._replace(acknowledged=known)
        if control.faults.lost_replies:
            yield (
                f"{flight.message} is stored on {NAMES[shard]}, the reply lost",
                stored._replace(control=stored.control.spent("lost_replies")),
            )
            spent = control.spent("lost_replies")
            yield (
                f"{flight.message} is lost on the way, which nobody knows",
                state._replace(control=spent, flight=None, message=flight.message + 1),
            )

    def _reader_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, control, known in learning(state.control, state.reader, "the reader"):
            yield name, state._replace(control=control, reader=known)
        for shard in self._homes(state):
            cursor = state.cursors[shard]
            if cursor < len(state.inboxes[shard]):
                entry = state.inboxes[shard][cursor]
                read = state._replace(cursors=put(state.cursors, shard, cursor + 1))
                if entry.position > read.floors[shard]:
                    read = read._replace(held=put(read.held, shard, (*read.held[shard], entry)))
                name = f"the reader reads {entry.message} from {NAMES[shard]}"
                yield name, self._progress(read)
        # A home that is not read any more cannot hold anything back.
        released = self._progress(state)
        if released != state:
            yield "the reader delivers what it held", released
        if state.settled != state.reader and self._has_settled(state):
            yield "the reader settles", state._replace(settled=state.reader)
        if self.deaths:
            yield "the reader is killed", state._replace(alive=False)

    def _homes(self, state: State) -> tuple[int, ...]:
        here = node(state.reader)
        return here.homes if self.rules.two_homes else (here.home,)

    def _has_settled(self, state: State) -> bool:
        here = node(state.reader)
        if here.stage not in (Stage.COMMITTED, Stage.UNDOING) or here.other is None:
            return True
        if not self.rules.drain:
            return True
        fenced = state.control.epoch_of(here.other) >= here.epoch
        return fenced and state.cursors[here.other] == len(state.inboxes[here.other])

    def _progress(self, state: State) -> State:
        """With everything delivered that nothing holds back any more; each shard's in order."""
        moved = True
        while moved:
            moved = False
            for shard in SHARDS:
                while state.held[shard]:
                    first, *rest = state.held[shard]
                    state, due = self._is_due(state, first.mark)
                    if not due:
                        break
                    state = state._replace(
                        held=put(state.held, shard, tuple(rest)),
                        delivered=(*state.delivered, first.message),
                    )
                    moved = True
        return state

    def _is_due(self, state: State, mark: Mark | None) -> tuple[State, bool]:
        if mark is None or state.control.lives[mark.shard] != mark.life:
            return state, True
        floor = max(state.floors[mark.shard], mark.position)
        if mark.shard not in self._homes(state):
            # It cannot be waited for: late is worse than never.
            return state._replace(floors=put(state.floors, mark.shard, floor)), True
        waiting = state.held[mark.shard]
        passed = not waiting or waiting[0].position > mark.position
        return state, passed and state.cursors[mark.shard] >= mark.position

    # -- what must not be

    def violation(self, state: State) -> str | None:
        if len(set(state.delivered)) != len(state.delivered):
            return "delivered twice"
        if list(state.delivered) != sorted(state.delivered):
            return "out of order"
        return None

    def violation_at_end(self, state: State) -> str | None:
        if state.control.node.stage is not Stage.IDLE:
            return f"stuck: {state.control.node.stage.value}"
        if state.message < self.messages:
            return "stuck: the writer"
        missing = state.acknowledged - set(state.delivered)
        if missing and state.alive and not state.control.crashed:
            return f"lost {sorted(missing)}"
        return None
