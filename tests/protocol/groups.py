"""Messages to a group whose slot moves, while a process joins: once it has, it gets each, once."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
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
from tests.protocol.direct import Entry, Flight, Mark, Trail, mark_of, written
from topology.transitions import Stage


class Member(Enum):
    """How far a join has come."""

    OUTSIDE = "outside"
    JOINING = "joining"
    INSIDE = "inside"


class State(NamedTuple):
    control: Control
    writer: int
    message: int  # the next one to publish
    flight: Flight | None
    trail: Trail
    acknowledged: frozenset[int]
    reader: int
    settled: int | None
    member: Member
    owed_from: int  # the first message that was published after the join had returned
    subscribed: tuple[bool, bool]
    confirmed: frozenset[int]  # the shards that knew nothing newer after the subscription
    positions: tuple[int, int]  # of the latest publication
    streams: tuple[tuple[Entry, ...], tuple[Entry, ...]]  # on their way to the subscriber
    held: tuple[tuple[Entry, ...], tuple[Entry, ...]]
    delivered: tuple[int, ...]


class Groups:
    """One process publishes, the other one joins, in the middle of a change or before it."""

    def __init__(self, rules: Rules, faults: Faults, *, messages: int) -> None:
        self.rules, self.messages = rules, messages
        control = Control.start(faults).having("clean")
        self.start = State(
            control=control,
            writer=control.doc,
            message=0,
            flight=None,
            trail=(None, None),
            acknowledged=frozenset(),
            reader=control.doc,
            settled=None,
            member=Member.OUTSIDE,
            owed_from=messages,
            subscribed=(False, False),
            confirmed=frozenset(),
            positions=(0, 0),
            streams=((), ()),
            held=((), ()),
            delivered=(),
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        control = state.control.having("copy").having("clean")  # there are no stored members here
        settled = state.settled == control.doc
        for name, changed in coordinator_steps(control, self.rules, settled=settled):
            yield name, state._replace(control=changed)
        for shard, changed in crashes(state.control):
            # Subscriptions end with their connection, and are made anew: here at once.
            fresh = state._replace(control=changed, positions=put(state.positions, shard, 0))
            yield f"shard {NAMES[shard]} is killed", _unsubscribed(fresh, shard)
        yield from self._writer_steps(state)
        yield from self._reader_steps(state)

    def _writer_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, control, known in learning(state.control, state.writer, "the writer"):
            yield name, state._replace(control=control, writer=known)
        if state.flight is not None:
            yield from self._arrivals(state, state.flight)
        elif state.message < self.messages:
            shard = node(state.writer).home
            mark = mark_of(state.trail, shard, self.rules)
            flight = Flight(state.message, state.writer, shard, mark)
            yield f"{state.message} is published on {NAMES[shard]}", state._replace(flight=flight)

    def _arrivals(self, state: State, flight: Flight) -> Iterator[tuple[str, State]]:
        control, shard = state.control, flight.shard
        if control.refuses(shard, flight.known, self.rules):
            writer = newest(state.writer, control.copies[shard])
            name = f"{flight.message} is refused by {NAMES[shard]}"
            yield name, state._replace(flight=None, writer=writer)
            return
        position = state.positions[shard] + 1
        entry = Entry(flight.message, flight.mark, position)
        reached = state._replace(
            control=control.written(shard, flight.known, self.rules),
            flight=None,
            message=flight.message + 1,
            trail=written(state.trail, Mark(shard, control.lives[shard], position), self.rules),
            acknowledged=state.acknowledged | {flight.message},
            positions=put(state.positions, shard, position),
        )
        if state.subscribed[shard]:
            stream = (*state.streams[shard], entry)
            reached = reached._replace(streams=put(state.streams, shard, stream))
        yield f"{flight.message} reaches the subscribers on {NAMES[shard]}", reached

    def _reader_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, control, known in learning(state.control, state.reader, "the reader"):
            heard = state._replace(control=control)
            yield name, heard if known == state.reader else self._moved(heard, known)
        if state.member is Member.OUTSIDE:
            yield "the reader begins to join", state._replace(member=Member.JOINING)
        else:
            yield from self._subscription_steps(state)
        for shard in SHARDS:
            if state.streams[shard]:
                first, *rest = state.streams[shard]
                heard = state._replace(
                    streams=put(state.streams, shard, tuple(rest)),
                    held=put(state.held, shard, (*state.held[shard], first)),
                )
                name = f"the reader hears {first.message} from {NAMES[shard]}"
                yield name, self._progress(heard)
        released = self._progress(state)
        if released != state:
            yield "the reader delivers what it held", released
        if state.settled != state.reader and self._has_settled(state):
            yield "the reader settles", state._replace(settled=state.reader)

    def _subscription_steps(self, state: State) -> Iterator[tuple[str, State]]:
        control = state.control
        for shard in self._homes(state):
            if not state.subscribed[shard]:
                subscribed = put(state.subscribed, shard, value=True)
                name = f"the reader subscribes on {NAMES[shard]}"
                yield name, state._replace(subscribed=subscribed)
            elif shard not in state.confirmed:
                if control.refuses(shard, state.reader, self.rules):
                    known = newest(state.reader, control.copies[shard])
                    yield f"{NAMES[shard]} knows a newer topology", self._moved(state, known)
                else:
                    confirmed = state.confirmed | {shard}
                    yield f"{NAMES[shard]} confirms", state._replace(confirmed=confirmed)
        if state.member is Member.JOINING and self._all_confirmed(state):
            owed_from = state.message + (state.flight is not None)
            joined = state._replace(member=Member.INSIDE, owed_from=owed_from)
            yield "the join returns", joined

    def _homes(self, state: State) -> tuple[int, ...]:
        here = node(state.reader)
        return here.homes if self.rules.two_homes else (here.home,)

    def _moved(self, state: State, known: int) -> State:
        """The reader goes by a newer topology: what is no home any more is left."""
        state = state._replace(reader=known, confirmed=frozenset())
        for shard in SHARDS:
            if shard not in self._homes(state):
                state = _unsubscribed(state, shard)
        return state

    def _all_confirmed(self, state: State) -> bool:
        return all(shard in state.confirmed for shard in self._homes(state))

    def _has_settled(self, state: State) -> bool:
        here = node(state.reader)
        if state.member is not Member.OUTSIDE and not self._all_confirmed(state):
            return False
        drains = here.stage in (Stage.COMMITTED, Stage.UNDOING) and here.other is not None
        if not drains or not self.rules.drain:
            return True
        assert here.other is not None
        fenced = state.control.epoch_of(here.other) >= here.epoch
        return fenced and not state.streams[here.other]  # a barrier is through

    def _progress(self, state: State) -> State:
        moved = True
        while moved:
            moved = False
            for shard in SHARDS:
                while state.held[shard] and self._is_due(state, state.held[shard][0].mark):
                    first, *rest = state.held[shard]
                    held = put(state.held, shard, tuple(rest))
                    state = state._replace(held=held, delivered=(*state.delivered, first.message))
                    moved = True
        return state

    def _is_due(self, state: State, mark: Mark | None) -> bool:
        """Whether nothing is on its way any more from before the mark: a barrier tells that."""
        if mark is None or state.control.lives[mark.shard] != mark.life:
            return True
        if mark.shard not in self._homes(state):
            return True
        before = (*state.held[mark.shard], *state.streams[mark.shard])
        return all(entry.position > mark.position for entry in before)

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
        if state.message < self.messages or state.member is not Member.INSIDE:
            return "stuck: a process"
        owed = {message for message in state.acknowledged if message >= state.owed_from}
        missing = owed - set(state.delivered)
        if missing and not state.control.crashed:
            return f"lost {sorted(missing)}"
        return None


def _unsubscribed(state: State, shard: int) -> State:
    return state._replace(
        subscribed=put(state.subscribed, shard, value=False),
        confirmed=state.confirmed - {shard},
        streams=put(state.streams, shard, ()),
    )
