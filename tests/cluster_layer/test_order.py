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

MOVED = A_INBOX  # where the inbox of channel "c" goes on


class Written(NamedTuple):
    """A message in a lane's log; `task` None: it is for another process, we only see its place."""

    position: int
    task: int | None
    number: int
    marks: dict[str, Mark] | None
    moved: bool  # to the inbox that has another home now
    since: int  # epoch of the marks


@dataclass
class Line:
    """A lane: its log at the shard, and how far the receiver has got."""

    life: str = LIFE
    log: list[Written] = field(default_factory=list)
    position: int = 0
    arrived: int = 0
    # What was passed over, in an inbox that was not read yet.
    unread: list[Written] = field(default_factory=list)
    open: bool = True
    # A barrier on its way: what `begin` gave, and the log's length when the shard saw it.
    barrier: tuple[Begun, int] | None = None
    covers_moved: bool = False
    begun: Begun | None = None
    again: bool = False


class World:
    """Several tasks write to lanes of two shards; one process receives."""

    def __init__(self) -> None:
        self.lines = {lane: Line() for lane in LANES}
        self.trails: defaultdict[int, Trail] = defaultdict(Trail)
        self.numbers: defaultdict[int, int] = defaultdict(int)
        # By task and by channel, each of which has an inbox: "a" on shard a, "b" on shard b, and
        # "c", which was elsewhere and is on MOVED since epoch 1. All are members of every group.
        self.delivered: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self.epoch = 0  # of the writers
        self.overtaken: set[tuple[Lane, str, int]] = set()
        # Tasks that wait for a shard to tell where its last write went.
        self.settling: dict[int, Lane] = {}
        self.sequencer = Sequencer(self._deliver, self._ask, _print_of, self._overtake)
        for lane in LANES:
            self.sequencer.open(lane, LIFE)

    def write(
        self,
        task: int,
        lane: Lane,
        *,
        ours: bool = True,
        told: str = "position",
        moved: bool = False,
    ) -> None:
        """What the writer is told: the position; nothing before it asks ("later"); or nothing."""
        self._settle(task)
        line = self.lines[lane]
        trail = self.trails[task]
        line.position += 1
        number = self.numbers[task] = self.numbers[task] + 1
        epoch = self.epoch
        marks = trail.marks(lane, 0.0, WINDOW_S, epoch)
        since = trail.epoch_of(marks) if marks else 0
        line.log.append(Written(line.position, task if ours else None, number, marks, moved, since))
        if told == "position":
            self.trails[task] = trail.after(lane, line.life, line.position, 0.0, epoch)
            return
        self.trails[task] = trail.in_doubt(lane, line.life, _print_of((task, number)), 0.0, epoch)
        if told == "later":
            self.settling[task] = lane

    def fail(self, task: int, lane: Lane) -> None:
        """The writer is told nothing, and nothing was written."""
        number = self.numbers[task] = self.numbers[task] + 1
        trail, life = self.trails[task], self.lines[lane].life
        self.trails[task] = trail.in_doubt(lane, life, _print_of((task, number)), 0.0, self.epoch)

    def write_moved(self, task: int, told: str = "position") -> None:
        """To the channel whose inbox has a new home, which the writers know from now on."""
        self.epoch = 1
        self.write(task, MOVED, told=told, moved=True)

    def learn(self) -> None:
        """The process hears of the new home, and begins to read that inbox, too."""
        if not self.sequencer.epoch:
            self.sequencer.widen(MOVED)
            self.sequencer.learn(1)

    def arrive(self, lane: Lane) -> None:
        """The next message of the lane reaches the process."""
        line = self.lines[lane]
        if not line.open or line.arrived == len(line.log):
            return
        written = line.log[line.arrived]
        line.arrived += 1
        if not written.moved:  # perhaps by a read that had begun before
            self._offer(lane, line, written)
        elif self.sequencer.epoch:
            self.arrive_late(lane)
            self._offer(lane, line, written)
        else:
            line.unread.append(written)

    def arrive_late(self, lane: Lane) -> None:
        """What was in the inbox that is read now, too, reaches the process."""
        line = self.lines[lane]
        if line.open and self.sequencer.epoch:
            unread, line.unread = line.unread, []
            for written in unread:
                self._offer(lane, line, written)

    def _offer(self, lane: Lane, line: Line, written: Written) -> None:
        if written.task is None:
            return
        item = (written.task, written.number, written.moved)
        if (lane, line.life, _print_of(item)) in self.overtaken:
            return
        self.sequencer.offer(lane, written.position, written.marks, item, 0.0, epoch=written.since)

    def see_barrier(self, lane: Lane) -> None:
        """The shard sees a barrier that was asked for: its answer comes behind all it has now."""
        line = self.lines[lane]
        if line.again and line.barrier is None and line.open:
            line.again = False
            # One that was cut is made again, for those who asked for it.
            line.begun = line.begun or self.sequencer.begin(lane)
            line.barrier = (line.begun, len(line.log))
            line.covers_moved = bool(self.sequencer.epoch)

    def answer_barrier(self, lane: Lane) -> None:
        line = self.lines[lane]
        if line.barrier is None:
            return
        begun, end = line.barrier
        if line.covers_moved:
            self.arrive_late(lane)
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
        self.learn()
        for lane in LANES:
            self.heal(lane)
        for _ in range(20):
            for lane in LANES:
                self.see_barrier(lane)
                self.answer_barrier(lane)
                self.arrive_late(lane)
                while self.lines[lane].arrived < len(self.lines[lane].log):
                    self.arrive(lane)

    def missing(self) -> list[tuple[int, str, int]]:
        """(task, channel, number) of what was written to us and not delivered."""
        return [
            (written.task, channel, written.number)
            for lane, line in self.lines.items()
            for written in line.log
            if written.task is not None
            for channel in _channels(lane, written.moved)
            if written.number not in self.delivered[written.task, channel]
        ]

    def _deliver(self, lane: Lane, item: tuple[int, int, bool]) -> None:
        task, number, moved = item
        for channel in _channels(lane, moved):
            before = self.delivered[task, channel]
            assert not before or before[-1] < number, f"task {task}: {number} after {before}"
            before.append(number)

    def _settle(self, task: int) -> None:
        """The shard tells its counter to a task: by now others may have written, too."""
        lane = self.settling.pop(task, None)
        if lane is not None:
            line = self.lines[lane]
            trail = self.trails[task]
            self.trails[task] = trail.after(lane, line.life, line.position, 0.0, self.epoch)

    def _ask(self, lane: Lane) -> None:
        self.lines[lane].again = True

    def _overtake(self, lane: Lane, incarnation: str, fingerprint: int) -> None:
        self.overtaken.add((lane, incarnation, fingerprint))


def _print_of(item: tuple[int, ...]) -> int:
    return item[0] * 1000 + item[1]


def _channels(lane: Lane, moved: bool) -> tuple[str, ...]:
    return ("a", "b", "c") if lane.kind == GROUP else ("c" if moved else lane.shard,)


_lanes = st.sampled_from(LANES)


_tasks = st.integers(min_value=0, max_value=2)


_writes = st.tuples(st.just("write"), _tasks, _lanes)


_moves = st.tuples(st.sampled_from(["arrive", "arrive", "see_barrier", "answer_barrier"]), _lanes)


_foreign = st.tuples(st.just("foreign"), _tasks, _lanes)


_unknown = st.tuples(st.sampled_from(["unknown", "cancelled", "fail"]), _tasks, _lanes)


# What it takes for a moved inbox to be behind its lane, and for a mark to name it.
_few_lanes = st.sampled_from([MOVED, B_GROUP])
_around_a_change = st.one_of(
    st.tuples(st.just("write_moved"), st.just(0)),
    st.tuples(st.just("write"), st.integers(min_value=0, max_value=1), _few_lanes),
    st.tuples(st.sampled_from(["arrive", "arrive", "see_barrier", "answer_barrier"]), _few_lanes),
    st.just(("learn",)),
    st.just(("arrive_late", MOVED)),
)


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
    st.lists(
        st.one_of(_writes, _writes, _moves, _moves, _foreign, _unknown, _cuts),
        max_size=60,
    )
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


@settings(max_examples=1000, deadline=None)
@given(st.lists(_around_a_change, max_size=30))
def test_an_inbox_with_a_new_home_is_not_behind_its_lane(steps: list[tuple[Any, ...]]) -> None:
    """The lane brings other inboxes' messages before this one is read there: nothing overtakes."""
    world = play(steps)
    world.settle()
    assert not world.missing()


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(
        st.one_of(
            _around_a_change,
            _around_a_change,
            st.tuples(st.sampled_from(["cut", "heal", "heal", "restart"]), _few_lanes),
            st.tuples(st.sampled_from(["unknown", "cancelled"]), st.just(0), _few_lanes),
        ),
        max_size=40,
    )
)
def test_nor_is_it_after_a_cut(steps: list[tuple[Any, ...]]) -> None:
    """The lane is cut and comes back before the inbox is read there, or its shard begins anew."""
    world = play(steps)
    world.settle()
