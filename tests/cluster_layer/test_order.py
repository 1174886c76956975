"""Order between verbs, by a model: lanes as logs, tasks with their trails, and one receiver.

A strategy chooses what happens next; the rules are checked after every step.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_layer.lanes import GROUP, Lane
from cluster_layer.marks import Mark, Trail
from cluster_layer.sequencer import Begun, Sequencer
from tests.support.lanes import A_INBOX, B_GROUP, LANES, LIFE, WINDOW_S


class Written(NamedTuple):
    """A message in a lane's log; `task` None: it is for another process, we only see its place."""

    position: int
    task: int | None
    number: int
    marks: dict[str, Mark] | None


@dataclass
class Line:
    """A lane: its log at the shard, and how far the receiver has got."""

    life: str = LIFE
    log: list[Written] = field(default_factory=list)
    position: int = 0
    arrived: int = 0
    open: bool = True
    # A barrier on its way: what `begin` gave, and the log's length when the shard saw it.
    barrier: tuple[Begun, int] | None = None
    begun: Begun | None = None
    again: bool = False


class World:
    """Several tasks write to lanes of two shards; one process receives."""

    def __init__(self) -> None:
        self.lines = {lane: Line() for lane in LANES}
        self.trails: defaultdict[int, Trail] = defaultdict(Trail)
        self.numbers: defaultdict[int, int] = defaultdict(int)
        # By task and by the shard of the inbox: each inbox is that of one channel, and both
        # channels are members of every group.
        self.delivered: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self.overtaken: set[tuple[Lane, str, int]] = set()
        # Tasks that wait for a shard to tell where its last write went.
        self.settling: dict[int, Lane] = {}
        self.sequencer = Sequencer(self._deliver, self._ask, _print_of, self._overtake)
        for lane in LANES:
            self.sequencer.open(lane, LIFE)

    def write(self, task: int, lane: Lane, *, ours: bool = True, told: str = "position") -> None:
        """What the writer is told: the position; nothing before it asks ("later"); or nothing."""
        self._settle(task)
        line = self.lines[lane]
        trail = self.trails[task]
        line.position += 1
        number = self.numbers[task] = self.numbers[task] + 1
        marks = trail.marks(lane, 0.0, WINDOW_S)
        line.log.append(Written(line.position, task if ours else None, number, marks))
        if told == "position":
            self.trails[task] = trail.after(lane, line.life, line.position, 0.0)
            return
        self.trails[task] = trail.in_doubt(lane, line.life, _print_of((task, number)), 0.0)
        if told == "later":
            self.settling[task] = lane

    def fail(self, task: int, lane: Lane) -> None:
        """The writer is told nothing, and nothing was written."""
        number = self.numbers[task] = self.numbers[task] + 1
        trail, life = self.trails[task], self.lines[lane].life
        self.trails[task] = trail.in_doubt(lane, life, _print_of((task, number)), 0.0)

    def arrive(self, lane: Lane) -> None:
        """The next message of the lane reaches the process."""
        line = self.lines[lane]
        if not line.open or line.arrived == len(line.log):
            return
        written = line.log[line.arrived]
        line.arrived += 1
        if written.task is None:
            return
        item = (written.task, written.number)
        if (lane, line.life, _print_of(item)) in self.overtaken:
            return
        self.sequencer.offer(lane, written.position, written.marks, item, 0.0)

    def see_barrier(self, lane: Lane) -> None:
        """The shard sees a barrier that was asked for: its answer comes behind all it has now."""
        line = self.lines[lane]
        if line.again and line.barrier is None and line.open:
            line.again = False
            # One that was cut is made again, for those who asked for it.
            line.begun = line.begun or self.sequencer.begin(lane)
            line.barrier = (line.begun, len(line.log))

    def answer_barrier(self, lane: Lane) -> None:
        line = self.lines[lane]
        if line.barrier is None:
            return
        begun, end = line.barrier
        while line.arrived < end:
            self.arrive(lane)
        line.barrier = line.begun = None
        self.sequencer.reached(lane, begun)

    def cut(self, lane: Lane) -> None:
        line = self.lines[lane]
        line.open, line.barrier, line.again = False, None, line.barrier is not None
        self.sequencer.close(lane)

    def restart(self, lane: Lane) -> None:
        """The lane's shard begins anew, blank; what its writers have not settled is settled."""
        for task, unsettled in list(self.settling.items()):
            if unsettled.shard == lane.shard:
                self._settle(task)
        for other in LANES:
            if other.shard == lane.shard:
                self.cut(other)
                old = self.lines[other]
                life = f"{old.life}+"
                self.lines[other] = Line(life, open=False, again=old.again, begun=old.begun)

    def heal(self, lane: Lane) -> None:
        """An inbox goes on where it was; a subscription has missed what came meanwhile."""
        line = self.lines[lane]
        if line.open:
            return
        line.open = True
        if lane.kind == GROUP:
            line.arrived = len(line.log)
        self.sequencer.open(lane, line.life)

    def settle(self) -> None:
        """Everything arrives that is on its way, and every barrier is answered."""
        for lane in LANES:
            self.heal(lane)
        for _ in range(20):
            for lane in LANES:
                self.see_barrier(lane)
                self.answer_barrier(lane)
                while self.lines[lane].arrived < len(self.lines[lane].log):
                    self.arrive(lane)

    def missing(self) -> list[tuple[int, str, int]]:
        """(task, channel, number) of what was written to us and not delivered."""
        return [
            (written.task, channel, written.number)
            for lane, line in self.lines.items()
            for written in line.log
            if written.task is not None
            for channel in _channels(lane)
            if written.number not in self.delivered[written.task, channel]
        ]

    def _deliver(self, lane: Lane, item: tuple[int, int]) -> None:
        task, number = item
        for channel in _channels(lane):
            before = self.delivered[task, channel]
            assert not before or before[-1] < number, f"task {task}: {number} after {before}"
            before.append(number)

    def _settle(self, task: int) -> None:
        """The shard tells its counter to a task: by now others may have written, too."""
        lane = self.settling.pop(task, None)
        if lane is not None:
            line = self.lines[lane]
            self.trails[task] = self.trails[task].after(lane, line.life, line.position, 0.0)

    def _ask(self, lane: Lane) -> None:
        self.lines[lane].again = True

    def _overtake(self, lane: Lane, incarnation: str, fingerprint: int) -> None:
        self.overtaken.add((lane, incarnation, fingerprint))


def _print_of(item: tuple[int, int]) -> int:
    return item[0] * 1000 + item[1]


def _channels(lane: Lane) -> tuple[str, ...]:
    return ("a", "b") if lane.kind == GROUP else (lane.shard,)


_lanes = st.sampled_from(LANES)


_tasks = st.integers(min_value=0, max_value=2)


_writes = st.tuples(st.just("write"), _tasks, _lanes)


_moves = st.tuples(st.sampled_from(["arrive", "arrive", "see_barrier", "answer_barrier"]), _lanes)


_foreign = st.tuples(st.just("foreign"), _tasks, _lanes)


_unknown = st.tuples(st.sampled_from(["unknown", "cancelled", "fail"]), _tasks, _lanes)


_cuts = st.tuples(st.sampled_from(["cut", "cut", "heal", "heal", "restart"]), _lanes)


def play(steps: list[tuple[Any, ...]]) -> World:
    world = World()
    for verb, *args in steps:
        if verb == "foreign":
            world.write(*args, ours=False)
        elif verb == "unknown":
            world.write(*args, told="later")
        elif verb == "cancelled":
            world.write(*args, told="nothing")
        else:
            getattr(world, verb)(*args)
    return world


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign), max_size=60))
def test_without_faults_everything_is_delivered_once_and_in_order(
    steps: list[tuple[Any, ...]],
) -> None:
    """Whatever the speed of lanes and barriers: each task's messages, all, once, in its order."""
    world = play(steps)
    world.settle()
    assert not world.missing()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign, _unknown, _cuts), max_size=60)
)
def test_cuts_lose_messages_but_never_their_order(steps: list[tuple[Any, ...]]) -> None:
    """Lanes that are cut and come back, shards that begin anew: nothing twice or out of order."""
    world = play(steps)
    world.settle()


@pytest.mark.parametrize("verb", ["unknown", "cancelled"])
def test_an_unknown_outcome_does_not_stall_the_task_s_next_messages(verb: str) -> None:
    """Unknown on b, then a, then b again: all of them are delivered without any time-out."""
    world = play([(verb, 0, B_GROUP), ("write", 0, A_INBOX), ("write", 0, B_GROUP)])
    world.settle()
    assert not world.missing()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign, _unknown), max_size=60))
def test_writes_of_unknown_outcome_keep_their_place(steps: list[tuple[Any, ...]]) -> None:
    """A lost reply at the writer disturbs neither order nor completeness at the receiver."""
    world = play(steps)
    world.settle()
    assert not world.missing()
