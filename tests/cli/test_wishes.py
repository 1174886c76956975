"""Wishes as plans: several at once, and those that cannot be fulfilled."""

from __future__ import annotations

import pytest

from cluster_layer.cli import wishes
from cluster_layer.cli.wishes import Wish
from cluster_layer.errors import ConfigError
from tests.topology.strategies import CLUSTER
from topology.model import Shard, ShardState
from topology.planning import initial_topology

A, B, C = (Shard(x, f"redis://{x}") for x in "abc")
TOPOLOGY = initial_topology([A, B], cluster=CLUSTER)


def test_a_shard_is_replaced_by_one_plan() -> None:
    """What leaves gives its slots to what comes, and nothing else moves."""
    plan = wishes.plan_of(TOPOLOGY, [wishes.add(C), wishes.remove("a")])
    assert plan.flows().keys() == {("a", "c")}
    assert [shard.id for shard in plan.shards] == ["b", "c"]
    assert plan.summary == "add c; remove a"


def test_wishes_build_on_each_other() -> None:
    """A shard that is added can be weighed in the same plan."""
    plan = wishes.plan_of(TOPOLOGY, [wishes.add(C), wishes.weigh("c", 2), wishes.drain("a")])
    assert {shard.id: shard.weight for shard in plan.shards}["c"] == 2
    states = {shard.id: shard.state for shard in plan.shards}
    assert (states["a"], states["b"]) == (ShardState.DRAINING, ShardState.UP)


def test_to_be_marked_up_undoes_a_drain() -> None:
    """The last wish about a shard counts."""
    plan = wishes.plan_of(TOPOLOGY, [wishes.drain("a"), wishes.mark_up("a")])
    assert (plan.moves, set(plan.shards)) == ((), {A, B})


@pytest.mark.parametrize(
    "wish",
    [wishes.remove("z"), wishes.drain("z"), wishes.weigh("z", 2), wishes.mark_up("z")],
)
def test_a_shard_that_is_not_there(wish: Wish) -> None:
    """The error names those that are."""
    with pytest.raises(ConfigError, match="only a, b"):
        wishes.plan_of(TOPOLOGY, [wish])


def test_an_id_is_given_once() -> None:
    """A shard that is added must not take another's place."""
    with pytest.raises(ConfigError, match="already"):
        wishes.plan_of(TOPOLOGY, [wishes.add(Shard("a", "redis://elsewhere"))])


def test_a_summary_fits_however_many_wishes_there_are() -> None:
    """A change has room for some hundred characters."""
    plan = wishes.plan_of(TOPOLOGY, [wishes.weigh("a", 1 + n) for n in range(100)])
    assert len(plan.summary) <= 500
