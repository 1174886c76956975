"""Transitions of a planned change, alone and in any order."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER, OPERATOR, shard_sets, usual_weights
from topology import transitions
from topology.codec import decode, encode
from topology.errors import (
    ChangeUnderWay,
    IllegalTransition,
    StaleEpoch,
    TopologyError,
    TopologyInvalid,
)
from topology.hashing import SLOTS
from topology.model import Phase, Shard, ShardState, Topology
from topology.planning import initial_topology, plan, table_after
from topology.plans import Plan
from topology.transitions import LEGAL, Stage, Step, differing, stage_of

A, B, C, D = (Shard(x, f"redis://{x}") for x in "abcd")
FIRST = initial_topology([A, B, C], cluster=CLUSTER)
ADD_D = plan(FIRST, [A, B, C, D], "add d")
UNHURRIED = settings(deadline=None, max_examples=60)


def begun(topology: Topology, made: Plan, step: int = SLOTS) -> Topology:
    return transitions.begin(
        topology, made, change_id="1" * 16, operator=OPERATOR, started_at=1, step=step
    )


def at(stage: Stage) -> Topology:
    """A topology in this stage, some slots of whose change have moved already."""
    topology = FIRST
    if stage is Stage.IDLE:
        return topology
    topology = begun(topology, ADD_D, 300)
    for step in (transitions.prepare, transitions.commit, transitions.finish):
        topology = step(topology)
    steps = {Stage.BETWEEN: 0, Stage.PREPARED: 1, Stage.COMMITTED: 2, Stage.UNDOING: 3}
    for step in (transitions.prepare, transitions.commit, transitions.abort)[: steps[stage]]:
        topology = step(topology)
    return topology


TAKE: dict[Step, Callable[[Topology], Topology]] = {
    Step.BEGIN: lambda t: begun(t, replace(ADD_D, epoch=t.epoch)),
    Step.PREPARE: transitions.prepare,
    Step.COMMIT: transitions.commit,
    Step.FINISH: transitions.finish,
    Step.ABORT: transitions.abort,
    Step.PAUSE: lambda t: transitions.pause(t, "a test"),
    Step.RESUME: transitions.resume,
    Step.THROTTLE: lambda t: transitions.throttle(t, 7),
    Step.REHOME: lambda t: transitions.rehome(t, ["a"], "a test"),
}


@pytest.mark.parametrize(("stage", "step"), list(product(Stage, Step)))
def test_what_is_legal_is_a_table(stage: Stage, step: Step) -> None:
    """What the table has leads to one of its stages, one epoch later; all else is refused."""
    before = at(stage)
    assert stage_of(before) is stage
    if (stage, step) == (Stage.BETWEEN, Step.FINISH):
        assert before.change is not None
        before = replace(before, change=replace(before.change, table=before.table))
    if (stage, step) not in LEGAL:
        with pytest.raises((IllegalTransition, ChangeUnderWay)):
            TAKE[step](before)
        return
    after = TAKE[step](before)
    assert stage_of(after) in LEGAL[stage, step]
    assert after.epoch == before.epoch + 1
    assert after.cluster == before.cluster


@UNHURRIED
@given(
    shard_sets(min_size=2, max_size=12, weights=usual_weights),
    st.integers(1, 11),
    st.integers(1, SLOTS),
)
def test_a_change_ends_where_its_plan_says(shards: list[Shard], kept: int, step: int) -> None:
    """Round by round, none larger than a step, to exactly the planned table and shards."""
    cut = kept % (len(shards) - 1)
    before = initial_topology(shards[: cut + 2], cluster=CLUSTER)
    made = plan(before, shards[cut:])
    step = max(step, len(made.moves) // 5 + 1)
    topology, rounds = begun(before, made, step), 0
    while topology.change is not None:
        topology = transitions.prepare(topology)
        assert 0 < len(topology.moving) <= step
        topology = transitions.finish(transitions.commit(topology))
        rounds += 1
    assert topology.table == table_after(made, before)
    assert topology.shards == made.shards
    assert rounds == -(-len(made.moves) // step)


def served(topology: Topology, slot: int) -> set[str]:
    """Ids of the shards that are homes of a slot."""
    other = topology.other_home(slot)
    return {topology.owner_of(slot).id, *([other.id] if other else [])}


class Walk:
    """A topology on a random walk, checked at every step."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.finished = topology.table  # the table at the end of the latest round

    def take(self, step: Step, choice: int) -> None:
        before = self.topology
        try:
            after = self._taken(step, choice)
        except TopologyError:
            return
        assert decode(encode(after)) == after
        assert after.epoch == before.epoch + 1
        is_new = any(served(after, slot) - served(before, slot) for slot in range(SLOTS))
        assert after.homes_since == (after.epoch if is_new else before.homes_since)
        if step is Step.REHOME:
            self._check_rehoming(before, after)
            self.finished = after.table
        else:
            self._check_homes(before, after)
        if after.phase is Phase.STEADY:
            if step is Step.ABORT:
                assert after.table == self.finished
            self.finished = after.table
        self.topology = after

    def _taken(self, step: Step, choice: int) -> Topology:
        topology = self.topology
        able = [shard for shard in topology.shards if shard.state is not ShardState.DOWN]
        chosen = able[choice % len(able)]
        if step is Step.REHOME:
            return transitions.rehome(topology, [chosen.id], "a walk")
        if step is Step.THROTTLE:
            return transitions.throttle(topology, choice % SLOTS + 1)
        if step is not Step.BEGIN:
            return TAKE[step](topology)
        others = [shard for shard in topology.shards if shard is not chosen]
        wishes = [
            [*topology.shards, Shard(f"n{topology.epoch}", f"redis://n{topology.epoch}")],
            others,
            [*others, replace(chosen, state=ShardState.DRAINING)],
            [*others, replace(chosen, weight=choice % 7 + 1)],
            [replace(shard, state=ShardState.UP) for shard in topology.shards],
        ]
        return begun(topology, plan(topology, wishes[choice % 5]), choice % 900 + 200)

    def _check_homes(self, before: Topology, after: Topology) -> None:
        """Where a slot is written to now, it was served before, and it is served where it was."""
        for slot in differing(before.table, after.table):
            there, here = after.owner_of(slot), before.owner_of(slot)
            earlier, now = before.other_home(slot), after.other_home(slot)
            assert earlier is not None
            assert earlier.id == there.id
            if here.state is not ShardState.DOWN:
                assert now is not None
                assert now.id == here.id

    def _check_rehoming(self, before: Topology, after: Topology) -> None:
        """The slots of the lost shard move, and no others; a change is paused."""
        (lost,) = {
            shard.id
            for old, shard in zip(before.shards, after.shards, strict=True)
            if old.state is not shard.state
        }
        for slot, (here, there) in enumerate(
            zip(before.table.owners, after.table.owners, strict=True)
        ):
            assert (here == there) is (here != lost), slot
        assert after.change is None or after.change.paused == "a walk"


@UNHURRIED
@given(
    shard_sets(min_size=2, max_size=5, weights=usual_weights),
    st.lists(st.tuples(st.sampled_from(Step), st.integers(0, 10**6)), max_size=40),
)
def test_no_walk_leads_to_an_invalid_topology(
    shards: list[Shard], steps: list[tuple[Step, int]]
) -> None:
    """Whatever is tried in whatever order: valid topologies, and no slot without a served home."""
    walk = Walk(initial_topology(shards, cluster=CLUSTER))
    forward = {
        Stage.IDLE: Step.BEGIN,
        Stage.BETWEEN: Step.PREPARE,
        Stage.PREPARED: Step.COMMIT,
        Stage.COMMITTED: Step.FINISH,
        Stage.UNDOING: Step.FINISH,
    }
    for step, choice in steps:
        # Every second step goes forward, else a walk would hardly ever get anywhere.
        walk.take(step if choice % 2 else forward[stage_of(walk.topology)], choice)


def test_a_shard_that_leaves_gets_nothing_and_is_gone_at_the_end() -> None:
    """During the change it drains; one that is down stays down."""
    during = begun(FIRST, plan(FIRST, [A, B]))
    assert during.shard("c").state is ShardState.DRAINING
    assert during.change is not None
    assert during.change.leaving == ("c",)
    assert during.final_shards() == (A, B)
    lost = transitions.rehome(FIRST, ["c"], "a test")
    gone = begun(lost, plan(lost, [A, B]))
    assert (gone.shards, gone.change) == ((A, B), None)


def test_a_begin_says_who_and_what_was_before() -> None:
    """Whoever resumes or aborts a change finds all that he needs in the topology."""
    made = plan(FIRST, [replace(A, weight=2), B, D], "swap")
    change = begun(FIRST, made, 9).change
    assert change is not None
    assert (change.summary, change.operator, change.step) == ("swap", OPERATOR, 9)
    assert (change.began_from, change.slots) == (FIRST.epoch, len(made.moves))
    assert (change.arriving, change.leaving, change.former) == (("d",), ("c",), (A, C))


def test_only_the_plan_for_this_topology_is_begun() -> None:
    """Another epoch, another cluster and a change under way are refused."""
    with pytest.raises(StaleEpoch):
        begun(replace(FIRST, epoch=2), ADD_D)
    with pytest.raises(TopologyInvalid, match="the plan is for cluster"):
        begun(replace(FIRST, cluster="0" * 16), ADD_D)
    with pytest.raises(ChangeUnderWay, match=r"'add d', begun by ada@ops-1\.example, pid 4711"):
        begun(begun(FIRST, ADD_D), replace(ADD_D, epoch=2))


def test_a_shard_whose_return_is_aborted_is_down_again_unless_it_owns_slots() -> None:
    """Nothing is left to a shard that is marked as down."""
    lost = transitions.rehome(FIRST, ["a"], "a test")
    back = begun(lost, plan(lost, [A, B, C]), 100)
    assert transitions.abort(back).shard("a").state is ShardState.DOWN
    moved = transitions.finish(transitions.commit(transitions.prepare(back)))
    assert transitions.abort(moved).shard("a").state is ShardState.UP


def test_a_goal_on_lost_shards_is_given_up_without_further_moves() -> None:
    """When the new shard is lost, what has not moved to it stays where it is."""
    during = begun(FIRST, ADD_D, 300)
    during = transitions.finish(transitions.commit(transitions.prepare(during)))
    after = transitions.rehome(during, ["d"], "a test")
    assert after.change is not None
    assert after.change.table == after.table
    assert transitions.finish(after).change is None
    counts = after.table.counts().values()
    assert max(counts) - min(counts) <= 2


def test_the_last_shard_that_stays_cannot_be_lost_in_a_change() -> None:
    """There would be no table to go on to: the change has to be aborted first."""
    two = initial_topology([A, B], cluster=CLUSTER)
    during = begun(two, plan(two, [A]), 100)
    with pytest.raises(TopologyInvalid, match="abort the change first"):
        transitions.rehome(during, ["a"], "a test")
    assert transitions.rehome(transitions.abort(during), ["a"], "a").table.counts() == {"b": SLOTS}
