"""Plans as values and as files."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER, shard_sets, usual_weights
from topology.errors import TopologyInvalid
from topology.hashing import SLOTS
from topology.model import Shard
from topology.planning import initial_topology, plan
from topology.plans import Move, Plan, decode_plan, encode_plan

A, B = Shard("a", "redis://:hunter2@a"), Shard("b", "redis://b")
PLAN = plan(initial_topology([A], cluster=CLUSTER), [A, B], "add shard b")
GOOD = encode_plan(PLAN)


@settings(deadline=None, max_examples=20)
@given(shard_sets(max_size=40, weights=usual_weights), st.integers(1, 40), st.text(max_size=9))
def test_a_saved_plan_is_the_same_plan(shards: list[Shard], count: int, summary: str) -> None:
    """Bytes and back, with all moves and shards; equal plans have equal bytes."""
    before = initial_topology(shards[:count], cluster=CLUSTER, epoch=7)
    made = plan(before, shards, "".join(c for c in summary if c.isprintable()))
    assert decode_plan(encode_plan(made)) == made
    assert encode_plan(decode_plan(encode_plan(made))) == encode_plan(made)


def test_flows_sum_the_moves_up() -> None:
    """Every move is in the flow from its source to its target."""
    made = Plan(CLUSTER, 1, "", (A, B), (Move(9, "a", "b"), Move(3, "b", "a"), Move(2, "a", "b")))
    assert made.flows() == {("a", "b"): (2, 9), ("b", "a"): (3,)}


def test_a_plan_checks_itself() -> None:
    """A slot that moves twice or does not exist is no plan."""
    with pytest.raises(TopologyInvalid, match="twice"):
        Plan(CLUSTER, 1, "", (), (Move(5, "a", "b"), Move(5, "b", "a")))
    with pytest.raises(TopologyInvalid, match="from 0 to 4095"):
        Plan(CLUSTER, 1, "", (), (Move(SLOTS, "a", "b"),))
    with pytest.raises(TopologyInvalid, match="cluster of a plan"):
        Plan("", 1, "", (), ())
    with pytest.raises(TopologyInvalid, match="epoch of a plan"):
        Plan(CLUSTER, 0, "", (), ())


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(GOOD) | fields).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JSON plan"),
        (b"[]", "a plan is a JSON object"),
        (changed(version=2), "the plan has version 2"),
        (changed(summary=None), "'summary' must be str"),
        (changed(moves={}), "'moves' must be list"),
        (changed(moves=[1]), "move 0 must be an object"),
        (changed(moves=[{"from": "a"}]), "move 0: 'to' must be str"),
        (changed(moves=[{"from": "a", "to": "b", "slots": [True]}]), "must hold integers"),
        (changed(moves=[{"from": "a", "to": "b", "slots": [5, 5]}]), "twice"),
        (changed(shards=[{"id": "a"}]), "shard 0: 'url' must be str"),
    ],
)
def test_what_is_no_plan_is_refused(data: bytes, reason: str) -> None:
    """The one error names the field, and shows no secret."""
    with pytest.raises(TopologyInvalid, match=reason) as caught:
        decode_plan(data)
    assert "hunter2" not in str(caught.value)
