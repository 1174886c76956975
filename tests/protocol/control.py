"""What all models of the protocol share: the document, the fences, and who knows what.

The document goes its way by the real transitions; of each topology a model sees one slot that is
to move from shard A to shard B. Shards are 0 (A) and 1 (B).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from tests.topology.strategies import CLUSTER, OPERATOR
from topology import transitions
from topology.hashing import SLOTS
from topology.model import Shard, ShardState, SlotTable, Topology
from topology.planning import plan
from topology.transitions import Stage, stage_of

A, B = 0, 1
SHARDS = (A, B)
NAMES = "AB"
SLOT = 0


@dataclass(frozen=True)
class Rules:
    """The protocol; a test switches one rule off and sees what that breaks."""

    fence: bool = True  # a shard refuses writers whose epoch is older than its own
    writers_bring: bool = True  # ... and who is newer has to bring it his topology before he writes
    commit_waits: bool = True  # ... for every receiver to have settled
    finish_waits: bool = True
    drain: bool = True  # settled in `committed` means: the old home is fenced and read to its end
    two_homes: bool = True  # what moves is served at both homes
    marks: bool = True  # a write behind another one at the other home carries a mark
    whole_trail: bool = True  # ... of the last write to each shard, not of the last one alone
    clean: bool = True  # leftovers on the target are deleted before a round
    clean_for_rehoming: bool = True  # ... and before it gets the slot of a lost shard
    copy_keeps: bool = True  # a copy does not write over what is there
    tombstones: bool = True  # a leave keeps a copy from bringing the member back
    late_tombstones: bool = False  # ... and also after the commit
    fenced_helpers: bool = True  # what the coordinator writes for a round is fenced too
    move_by_copy: bool = False  # a queue is moved by reading, writing, deleting
    receipts: bool = True  # a batch is pushed with a receipt
    same_life: bool = True  # a batch is pushed only into the life of the shard it was taken for


@dataclass(frozen=True)
class Faults:
    """How often each may happen in one run."""

    coordinator_crashes: int = 0
    aborts: int = 0
    shard_crashes: int = 0
    lost_replies: int = 0
    rehomes: int = 0  # a shard is marked as down that lives


class Node(NamedTuple):
    """What a topology says about the slot."""

    epoch: int
    stage: Stage
    home: int
    other: int | None
    down: frozenset[int]

    @property
    def homes(self) -> tuple[int, ...]:
        return (self.home,) if self.other is None else (self.home, self.other)


_topologies: list[Topology] = []


def node_id(topology: Topology) -> int:
    if topology not in _topologies:
        _topologies.append(topology)
    return _topologies.index(topology)


@cache
def node(number: int) -> Node:
    topology = _topologies[number]
    other = topology.other_home(SLOT)
    down = frozenset(
        NAMES.index(shard.id) for shard in topology.shards if shard.state is ShardState.DOWN
    )
    return Node(
        topology.epoch,
        stage_of(topology),
        NAMES.index(topology.owner_of(SLOT).id),
        None if other is None else NAMES.index(other.id),
        down,
    )


@cache
def after(number: int, step: str, shard: int = A) -> int:
    """The topology after a transition."""
    topology = _topologies[number]
    if step == "rehome":
        return node_id(transitions.rehome(topology, [NAMES[shard]], "lost"))
    if step == "resume":
        return node_id(transitions.resume(topology))
    result: Topology = getattr(transitions, step)(topology)
    return node_id(result)


def first_topology() -> int:
    """A change that drains A has begun; no round yet."""
    shards = tuple(Shard(name, f"redis://{name}:6379") for name in NAMES)
    steady = Topology(CLUSTER, 1, shards, SlotTable(("A", "B") * (SLOTS // 2)))
    made = plan(steady, [replace(shards[A], state=ShardState.DRAINING), shards[B]], "drain A")
    begun = transitions.begin(
        steady, made, change_id="1" * 16, operator=OPERATOR, started_at=1, step=SLOTS
    )
    return node_id(begun)


@cache
def round_or_end(number: int) -> str:
    """What comes between two rounds: the next one, or the end if nothing is left to move."""
    change = _topologies[number].change
    return "finish" if change and change.table == _topologies[number].table else "prepare"


class Control(NamedTuple):
    """The document, what the shards know, and what the coordinator has done for it.

    A shard that was restarted knows no topology (None) and has begun another life.
    """

    doc: int
    copies: tuple[int | None, int | None]
    lives: tuple[int, int]
    done: frozenset[str]
    faults: Faults
    crashed: bool  # a shard was, or was marked as down: then messages may be lost

    @classmethod
    def start(cls, faults: Faults) -> Control:
        first = first_topology()
        return cls(first, (first, first), (1, 1), frozenset(), faults, crashed=False)

    @property
    def node(self) -> Node:
        return node(self.doc)

    def refuses(self, shard: int, known: int, rules: Rules) -> bool:
        """Whether the shard refuses who knows that topology."""
        return rules.fence and self.epoch_of(shard) > node(known).epoch

    def epoch_of(self, shard: int) -> int:
        copy = self.copies[shard]
        return 0 if copy is None else node(copy).epoch

    def told(self, shard: int, known: int) -> Control:
        """The shard has been brought a topology; it keeps the newer one."""
        if self.epoch_of(shard) >= node(known).epoch:
            return self
        return self._replace(copies=put(self.copies, shard, known))

    def written(self, shard: int, known: int, rules: Rules) -> Control:
        """After a write that the shard has not refused."""
        return self.told(shard, known) if rules.writers_bring else self

    def having(self, what: str) -> Control:
        return self._replace(done=self.done | {what})

    def moved_on(self, step: str, shard: int = A) -> Control:
        doc = after(self.doc, step, shard)
        return self._replace(doc=doc, done=frozenset())

    def spent(self, fault: str) -> Control:
        left = getattr(self.faults, fault) - 1
        return self._replace(faults=replace(self.faults, **{fault: left}))

    @property
    def installed(self) -> bool:
        """Whether the coordinator knows that every shard that is up has the document."""
        return all(
            f"install {NAMES[shard]}" in self.done
            for shard in SHARDS
            if shard not in self.node.down
        )


def put(values: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:index], value, *values[index + 1 :])


def newer(control: Control, known: int) -> Iterator[tuple[str, int]]:
    """What a process can learn: from the store, or from a shard, which both may be behind."""
    found = {"the store": control.doc}
    for shard in SHARDS:
        copy = control.copies[shard]
        if copy is not None:
            found[f"shard {NAMES[shard]}"] = copy
    seen = set()
    for source, number in found.items():
        if node(number).epoch > node(known).epoch and number not in seen:
            seen.add(number)
            yield source, number


def coordinator_steps(
    control: Control, rules: Rules, *, settled: bool, drained: bool = True
) -> Iterator[tuple[str, Control]]:
    """Installing and the transitions.

    ``settled``: every living receiver has settled the document. ``drained``: nothing is left on
    the old home. What else a stage needs is in ``done``: "clean" before it is prepared, "copy"
    before it is committed.
    """
    for shard in SHARDS:
        what = f"install {NAMES[shard]}"
        if what not in control.done and shard not in control.node.down:
            yield what, control.told(shard, control.doc).having(what)
    stage, done = control.node.stage, control.done
    if stage is Stage.IDLE:
        return
    if stage is Stage.BETWEEN and "clean" in done:
        yield "next round", control.moved_on(round_or_end(control.doc))
    if not control.installed:
        ready = False
    elif stage is Stage.PREPARED:
        ready = "copy" in done and (settled or not rules.commit_waits)
    else:
        ready = drained and (settled or not rules.finish_waits)
    if ready and stage is Stage.PREPARED:
        yield "commit", control.moved_on("commit")
    if ready and stage in (Stage.COMMITTED, Stage.UNDOING):
        yield "finish", control.moved_on("finish")
    yield from _faults(control, stage)


def _faults(control: Control, stage: Stage) -> Iterator[tuple[str, Control]]:
    faults = control.faults
    if faults.coordinator_crashes and control.done:
        crashed = control.spent("coordinator_crashes")._replace(done=frozenset())
        yield "the coordinator is killed, another one resumes", crashed
    if faults.aborts and stage is not Stage.UNDOING:
        yield "abort", control.spent("aborts").moved_on("abort")
    if faults.rehomes:
        for shard in SHARDS:
            lost = control.spent("rehomes").moved_on("rehome", shard)
            lost = lost._replace(doc=after(lost.doc, "resume"), crashed=True)
            yield f"shard {NAMES[shard]} is marked as down", lost


def crashes(control: Control) -> Iterator[tuple[int, Control]]:
    """A shard is killed and restarted: blank, in another life, without a fence."""
    if control.faults.shard_crashes:
        for shard in SHARDS:
            lost = control.spent("shard_crashes")._replace(crashed=True)
            lives = put(lost.lives, shard, lost.lives[shard] + 1)
            yield shard, lost._replace(copies=put(lost.copies, shard, None), lives=lives)


def learning(control: Control, known: int, who: str) -> Iterator[tuple[str, Control, int]]:
    """What a process can hear of, and bring to shards that do not know it: name, control, known."""
    for source, found in newer(control, known):
        yield f"{who} learns from {source}", control, found
    for shard in SHARDS:
        if shard not in node(known).down and control.told(shard, known) is not control:
            yield f"{who} brings it to shard {NAMES[shard]}", control.told(shard, known), known


def newest(known: int, copy: int | None) -> int:
    """What a process knows that has been told of a shard's copy."""
    return known if copy is None else max(known, copy, key=lambda number: node(number).epoch)
