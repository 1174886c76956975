"""How a topology becomes the next one: from value to value, one epoch higher each time.

A planned change is a sequence of *rounds*. A round takes the topology from ``BETWEEN`` through
``PREPARED`` and ``COMMITTED`` back; it moves at most ``step`` slots. The change ends when a round
has led to its table, or when it is aborted.

::

                  begin              prepare               commit
      IDLE ------------------> BETWEEN ------> PREPARED ------------> COMMITTED
       ^ ^ ^                   |  ^  |            |                    |  |
       | | |  finish, abort    |  |  |            |       finish       |  |
       | | +-------------------+  +--|------------|--------------------+  | abort
       | |         abort             |            |    (the last: IDLE)   v
       | +---------------------------|------------+                    UNDOING
       |                             |     finish                         |
       +-----------------------------|------------------------------------+

Why it is safe (docs/decisions/0006):

- Writers use ``table`` alone, so each stage has one home to write to; receivers serve the other
  home too, from before the first write there (``prepare``) to after the last (``finish``).
- Nothing is lost by going back: in ``PREPARED`` nobody has written to the new home yet; in
  ``COMMITTED`` both homes are served, so the tables can be exchanged, and the round ends as every
  round does: with the draining of ``previous``.
- ``commit`` and ``finish`` have a condition that no topology can show: every living receiver has
  settled. Who calls them has seen to it (``coordinator``).
- ``rehome`` is legal at every stage, because shards are lost at every stage. In ``PREPARED`` the
  pending table is dropped, as in an abort; in ``COMMITTED`` the round goes on with what is left.
  The change is paused then: its plan was made for other shards.
- A change that is paused goes neither into a round nor over to its new table; it may still finish
  or undo the round under way, which only takes back what a round costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from enum import Enum
from typing import Final

from topology.errors import IllegalTransition, TopologyInvalid
from topology.model import Change, Operator, Phase, Shard, ShardState, SlotTable, Topology
from topology.planning import rehomed, require_idle, table_after
from topology.plans import Plan


class Stage(Enum):
    """Where a topology is on the way of a change."""

    IDLE = "no change is under way"
    BETWEEN = "between two rounds"
    PREPARED = "a round is prepared"
    COMMITTED = "a round is committed"
    UNDOING = "a round is being undone"


class Step(Enum):
    """What can happen to a topology."""

    BEGIN = "begin"
    PREPARE = "prepare"
    COMMIT = "commit"
    FINISH = "finish"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    THROTTLE = "throttle"
    REHOME = "rehome"


_I, _B, _P, _C, _U = Stage

#: (stage, step) -> the stages that it can lead to; what is not here is illegal.
LEGAL: Final[dict[tuple[Stage, Step], tuple[Stage, ...]]] = {
    (_I, Step.BEGIN): (_B, _I),  # at once at its end, if no slot moves
    (_B, Step.PREPARE): (_P,),
    (_P, Step.COMMIT): (_C,),
    (_C, Step.FINISH): (_B, _I),
    (_U, Step.FINISH): (_I,),
    (_B, Step.FINISH): (_I,),  # if a re-homing has left nothing to move
    (_B, Step.ABORT): (_I,),
    (_P, Step.ABORT): (_I,),
    (_C, Step.ABORT): (_U,),
    (_I, Step.REHOME): (_I,),
    (_B, Step.REHOME): (_B,),
    (_P, Step.REHOME): (_B,),
    (_C, Step.REHOME): (_C,),
    (_U, Step.REHOME): (_U,),
    **{
        (stage, step): (stage,)
        for stage in (_B, _P, _C, _U)
        for step in (Step.PAUSE, Step.RESUME, Step.THROTTLE)
    },
}

#: What a paused change does not do.
HELD_BY_A_PAUSE: Final = frozenset({Step.PREPARE, Step.COMMIT})


def stage_of(topology: Topology) -> Stage:
    if topology.phase is Phase.PREPARED:
        return Stage.PREPARED
    if topology.phase is Phase.COMMITTED:
        undoing = topology.change is not None and topology.change.aborting
        return Stage.UNDOING if undoing else Stage.COMMITTED
    return Stage.IDLE if topology.change is None else Stage.BETWEEN


def begin(
    topology: Topology,
    plan: Plan,
    *,
    change_id: str,
    operator: Operator,
    started_at: int,
    step: int,
) -> Topology:
    """Begin to execute a plan; if it moves no slot, this is all that there is to do.

    ChangeUnderWay, StaleEpoch or TopologyInvalid if the plan does not fit the topology.
    """
    require_idle(topology)
    final = table_after(plan, topology)
    before = {shard.id: shard for shard in topology.shards}
    wanted = {shard.id: shard for shard in plan.shards}
    # A shard that leaves owns slots until they have moved, and is to get no new ones.
    leaving = [
        shard if shard.state is ShardState.DOWN else replace(shard, state=ShardState.DRAINING)
        for shard in topology.shards
        if shard.id not in wanted
    ]
    shards = sorted((*plan.shards, *leaving), key=lambda shard: shard.id)
    change = Change(
        id=change_id,
        summary=plan.summary,
        operator=operator,
        started_at=started_at,
        began_from=topology.epoch,
        table=final,
        slots=len(plan.moves),
        step=step,
        arriving=tuple(shard_id for shard_id in wanted if shard_id not in before),
        leaving=tuple(shard.id for shard in leaving),
        former=tuple(
            before[shard.id] for shard in shards if shard.id in before and before[shard.id] != shard
        ),
    )
    if plan.moves:
        result = _next(topology, shards=tuple(shards), change=change)
    else:
        result = _next(topology, shards=plan.shards)
    return _checked(topology, Step.BEGIN, result)


def prepare(topology: Topology) -> Topology:
    """Publish the table of the next round: both homes are to be served from now on."""
    change = _require(topology, Step.PREPARE)
    owners = list(topology.table.owners)
    rest = differing(topology.table, change.table)
    if not rest:
        raise IllegalTransition("there is nothing left to move: finish the change")
    for slot in rest[: change.step]:
        owners[slot] = change.table.owners[slot]
    pending = SlotTable(tuple(owners))
    result = _next(topology, phase=Phase.PREPARED, pending=pending)
    return _checked(topology, Step.PREPARE, result)


def commit(topology: Topology) -> Topology:
    """Let writers use the new homes; only when every living receiver has settled."""
    _require(topology, Step.COMMIT)
    assert topology.pending is not None  # noqa: S101 - the phase says so
    result = _next(
        topology,
        phase=Phase.COMMITTED,
        table=topology.pending,
        pending=None,
        previous=topology.table,
    )
    return _checked(topology, Step.COMMIT, result)


def finish(topology: Topology) -> Topology:
    """Leave the old homes, and with the last round the change.

    Only when every living receiver has settled and nothing is left on the old homes.
    """
    change = _require(topology, Step.FINISH)
    if not change.aborting and topology.phase is Phase.STEADY and topology.table != change.table:
        raise IllegalTransition("slots are still to be moved: the change is not at its end")
    steady = {"phase": Phase.STEADY, "previous": None}
    if change.aborting:
        result = _next(topology, **steady, shards=_restored(topology), change=None)
    elif topology.table == change.table:
        result = _next(topology, **steady, shards=topology.final_shards(), change=None)
    else:
        result = _next(topology, **steady)
    return _checked(topology, Step.FINISH, result)


def abort(topology: Topology) -> Topology:
    """End the change: undo the round under way, keep those that are finished.

    From ``COMMITTED`` that takes a drain and a ``finish`` yet, as every round does.
    """
    change = _require(topology, Step.ABORT)
    if topology.phase is Phase.COMMITTED:
        assert topology.previous is not None  # noqa: S101 - the phase says so
        # What was lost since the commit cannot be gone back to.
        back = rehomed(topology.previous, topology.shards)
        result = _next(
            topology,
            table=back,
            previous=topology.table,
            change=replace(change, aborting=True),
        )
    else:
        shards = _restored(topology)
        result = _next(topology, phase=Phase.STEADY, pending=None, shards=shards, change=None)
    return _checked(topology, Step.ABORT, result)


def pause(topology: Topology, reason: str) -> Topology:
    """Let the change go no further than to the end of the round under way."""
    change = _require(topology, Step.PAUSE)
    return _checked(topology, Step.PAUSE, _next(topology, change=replace(change, paused=reason)))


def resume(topology: Topology) -> Topology:
    """Let a paused change go on."""
    change = _require(topology, Step.RESUME)
    return _checked(topology, Step.RESUME, _next(topology, change=replace(change, paused=None)))


def throttle(topology: Topology, step: int) -> Topology:
    """Move at most so many slots per round from the next one on."""
    change = _require(topology, Step.THROTTLE)
    return _checked(topology, Step.THROTTLE, _next(topology, change=replace(change, step=step)))


def rehome(topology: Topology, lost: Collection[str], reason: str) -> Topology:
    """Mark shards as down and give their slots, and only theirs, to the others by weight.

    TopologyInvalid if one of them is not there or is down already, or if none would be left. A
    change under way is paused for the reason.
    """
    for shard_id in lost:
        shard = next((shard for shard in topology.shards if shard.id == shard_id), None)
        if shard is None:
            raise TopologyInvalid(f"there is no shard {shard_id!r}")
        if shard.state is ShardState.DOWN:
            raise TopologyInvalid(f"shard {shard_id!r} is down already")
    shards = tuple(
        replace(shard, state=ShardState.DOWN) if shard.id in lost else shard
        for shard in topology.shards
    )
    goal = _rehomed_goal(topology, shards)
    # What has to move now moves to its final place at once.
    owners = [
        there if here in lost else here
        for here, there in zip(topology.table.owners, goal.owners, strict=True)
    ]
    dropped = topology.phase is Phase.PREPARED
    change = topology.change
    result = _next(
        topology,
        shards=shards,
        table=SlotTable(tuple(owners)),
        phase=Phase.STEADY if dropped else topology.phase,
        pending=None,
        change=None if change is None else replace(change, table=goal, paused=reason),
    )
    return _checked(topology, Step.REHOME, result)


def differing(table: SlotTable, other: SlotTable) -> list[int]:
    """The slots that two tables give to different shards, ascending."""
    pairs = zip(table.owners, other.owners, strict=True)
    return [slot for slot, (one, another) in enumerate(pairs) if one != another]


def _rehomed_goal(topology: Topology, shards: tuple[Shard, ...]) -> SlotTable:
    """The table to end with, when some of its shards are down."""
    change, now = topology.change, topology.table
    if change is None:
        return rehomed(now, shards)
    passing = change.arriving if change.aborting else change.leaving
    staying = [shard for shard in shards if shard.id not in passing]
    able = {shard.id for shard in staying if shard.state is not ShardState.DOWN}
    if not able:
        if not change.aborting:
            raise TopologyInvalid("only shards that leave would be left: abort the change first")
        return rehomed(now, shards)
    # Of the first that is able: where the slot is to go, where it is, where it has just come from.
    wishes = zip(
        (now if change.aborting else change.table).owners,
        now.owners,
        (topology.previous or now).owners,
        strict=True,
    )
    owners = [next((owner for owner in wish if owner in able), wish[0]) for wish in wishes]
    return rehomed(SlotTable(tuple(owners)), staying)


def _restored(topology: Topology) -> tuple[Shard, ...]:
    """The shards after an abort: as they were before, as far as what they own now allows."""
    change = topology.change
    assert change is not None  # noqa: S101 - there is one to abort
    former = {shard.id: shard for shard in change.former}
    owning = set(topology.table.owners)
    restored = []
    for shard in topology.shards:
        before = former.get(shard.id, shard)
        if shard.state is ShardState.DOWN:
            before = replace(before, state=ShardState.DOWN)
        elif before.state is ShardState.DOWN and shard.id in owning:
            before = shard  # it came back with this change and has got slots
        if shard.id in owning or shard.id not in change.arriving:
            restored.append(before)
    return tuple(restored)


def _next(topology: Topology, **fields: object) -> Topology:
    after = replace(topology, epoch=topology.epoch + 1, **fields)  # type: ignore[arg-type]
    homes = zip(_homes(topology), _homes(after), strict=True)
    is_new = any(home not in before for before, now in homes for home in now)
    return replace(after, homes_since=after.epoch) if is_new else after


def _homes(topology: Topology) -> Iterator[tuple[str, str]]:
    """The homes of each slot; twice the same if it does not move."""
    other = topology.pending or topology.previous or topology.table
    return zip(topology.table.owners, other.owners, strict=True)


def _require(topology: Topology, step: Step) -> Change:
    """The change under way; IllegalTransition if the step is not legal now."""
    stage, change = stage_of(topology), topology.change
    if (stage, step) not in LEGAL or change is None:
        raise IllegalTransition(f"cannot {step.value}: {stage.value}")
    if change.paused is not None and step in HELD_BY_A_PAUSE:
        raise IllegalTransition(f"cannot {step.value}: the change is paused ({change.paused})")
    return change


def _checked(before: Topology, step: Step, after: Topology) -> Topology:
    """The result, which has checked itself; its stage must be one that the table knows."""
    stages = LEGAL[stage_of(before), step]
    assert stage_of(after) in stages, (stage_of(before), step, stage_of(after))  # noqa: S101
    return after
