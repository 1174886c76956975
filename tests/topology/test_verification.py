"""A verification finds what is not as it should be, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.topology.samples import PROCESS, TOPOLOGY, A, B, C
from tests.topology.strategies import CLUSTER
from topology import transitions
from topology.model import Operator, ShardState, Topology
from topology.planning import initial_topology, plan
from topology.ports import Leftovers, ProcessReport, ShardStatus
from topology.verification import Verification, verify

WELL = {name: ShardStatus(name, epoch=5) for name in "ab"}
CLEAN = {name: Leftovers(0, 0, 0) for name in "ab"}


def verified(
    topology: Topology = TOPOLOGY,
    *,
    process: ProcessReport = PROCESS,
    leftovers: dict[str, Leftovers | None] | None = None,
    **statuses: ShardStatus,
) -> Verification:
    return verify(topology, {**WELL, **statuses}, [process], {**CLEAN, **(leftovers or {})})


def flaws(found: Verification) -> list[str]:
    return [str(flaw) for flaw in found.flaws]


def test_a_settled_site_is_valid() -> None:
    """It says how much was looked at."""
    found = verified()
    assert (found.valid, found.epoch, found.shards, found.processes) == (True, 5, 2, 1)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (ShardStatus("a", "connection refused"), "connection refused"),
        (ShardStatus("a", epoch=4), "a: serves epoch 4, not 5"),
        (ShardStatus("a", epoch=6), "a: serves epoch 6, not 5"),
    ],
)
def test_shards_that_are_behind_or_away(status: ShardStatus, said: str) -> None:
    """Each one is named, with what it serves or why it was not reached."""
    (flaw,) = flaws(verified(a=status))
    assert said in flaw


def test_a_blank_shard_is_well() -> None:
    """The first process that writes to it brings the topology."""
    assert verified(a=ShardStatus("a", epoch=0)).valid


def test_a_shard_that_is_down_is_not_looked_at() -> None:
    """Nobody reads or writes there."""
    shards = (replace(A, state=ShardState.DOWN), B)
    topology = initial_topology(shards, cluster=CLUSTER, epoch=5)
    assert verified(topology, a=ShardStatus("a", "connection refused")).valid


@pytest.mark.parametrize(
    ("fields", "flawed"),
    [
        ({"settled": 4}, True),
        ({"age_s": 30.0}, True),
        ({"settled": 4, "alive": False}, False),
        ({"settled": 4, "receives": False}, False),
        ({"settled": 4, "role": "monitor"}, False),
    ],
)
def test_processes_that_have_not_settled(fields: dict[str, object], flawed: bool) -> None:
    """Named with host and pid; those that have ended, or only send, are nobody's concern."""
    found = flaws(verified(process=replace(PROCESS, **fields)))  # type: ignore[arg-type]
    assert len(found) == flawed
    assert all("p1 (host web-1, pid 7)" in flaw for flaw in found)


def test_messages_where_nobody_reads() -> None:
    """They are counted, with the shard; memberships there are harmless."""
    (flaw,) = flaws(verified(leftovers={"a": Leftovers(1, 2, 0)}))
    assert "on a: 2 messages in 1 queues" in flaw
    found = verified(leftovers={"a": Leftovers(0, 0, 3), "b": None})
    assert (found.valid, found.forgotten) == (True, 3)


def test_a_change_under_way() -> None:
    """A topology in the middle of a change is not what it should become."""
    begun = transitions.begin(
        replace(TOPOLOGY, epoch=4, homes_since=4),
        replace(plan(TOPOLOGY, [A, B, C], "add c"), epoch=4),
        change_id="1" * 16,
        operator=Operator("ada", "ops-1", 1),
        started_at=0,
        step=64,
    )
    (flaw,) = flaws(verified(begun, c=ShardStatus("c", epoch=5)))
    assert "add c" in flaw
