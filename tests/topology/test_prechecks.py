"""What speaks against a plan: each check finds its trouble and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.topology.samples import PROCESS, TOPOLOGY, A, B, C
from tests.topology.strategies import CLUSTER
from topology.model import ShardState
from topology.planning import initial_topology, plan
from topology.ports import ProcessReport, ShardStatus, StoreServer
from topology.prechecks import (
    CHECKS,
    concerned,
    estimated_bytes,
    objections_to,
    objections_to_loss,
)

PLAN = plan(TOPOLOGY, [A, B, C], "add c")
MIB = 2**20
WELL = ShardStatus(
    "",
    version="Redis 7.0.15",
    role="master",
    epoch=5,
    memory_bytes=30 * MIB,
    max_memory_bytes=0,
)
STATUSES = {name: replace(WELL, shard=name) for name in "abc"}
SERVER = StoreServer("zk-1:2181", latency_s=0.01)


def checks(
    statuses: Mapping[str, ShardStatus] = STATUSES,
    servers: Sequence[StoreServer] = (SERVER,),
    reports: Iterable[ProcessReport] = (PROCESS,),
) -> list[str]:
    """Names of the checks that speak against the plan."""
    found = objections_to(PLAN, TOPOLOGY, statuses, servers, reports)
    assert all(objection.reason and objection.remedy for objection in found)
    return [objection.check for objection in found]


def with_c(**fields: object) -> dict[str, ShardStatus]:
    return {**STATUSES, "c": replace(STATUSES["c"], **fields)}  # type: ignore[arg-type]


def test_nothing_speaks_against_a_plan_among_healthy_parts() -> None:
    """No objection when all is well."""
    assert checks() == []


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"reason": "connection refused"}, "reachable"),
        ({"role": "slave"}, "writable"),
        ({"missing_permissions": ("XREAD",)}, "permissions"),
        ({"version": "Redis 6.0.16"}, "version"),
        ({"epoch": 6}, "epoch"),
        ({"max_memory_bytes": 40 * MIB}, "memory"),
    ],
)
def test_each_trouble_of_a_shard_is_found(fields: dict[str, object], check: str) -> None:
    """By the name under which an operator can override it."""
    assert checks(with_c(**fields)) == [check]
    assert check in CHECKS


@pytest.mark.parametrize("version", ["Redis 6.2.0", "Redis 10.0.1", "Valkey 8.1.0", None])
def test_versions_that_will_do(version: str | None) -> None:
    """6.2 or newer, compared as numbers; what a shard does not tell is no objection."""
    assert checks(with_c(version=version)) == []


def test_memory_is_judged_by_what_may_arrive() -> None:
    """A source gives away memory by the share of its slots that move."""
    moved = estimated_bytes(PLAN, TOPOLOGY, STATUSES)
    assert moved.keys() == {("a", "c"), ("b", "c")}
    assert sum(moved.values()) == pytest.approx(20 * MIB, rel=0.01)
    assert checks(with_c(max_memory_bytes=60 * MIB)) == []
    assert checks(with_c(max_memory_bytes=55 * MIB)) == ["memory"]


@pytest.mark.parametrize(
    ("serving", "servers", "weak"),
    [(1, 1, False), (3, 3, False), (2, 3, True), (1, 2, True), (4, 5, False), (3, 5, True)],
)
def test_a_weak_quorum(serving: int, servers: int, weak: bool) -> None:
    """A store that the loss of one more server would stop is no store to begin with."""
    found = [
        StoreServer(f"zk-{number}", None if number < serving else "connection refused")
        for number in range(servers)
    ]
    assert checks(servers=found) == ["store"] * weak


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"age_s": 30.0}, True),
        ({"unreachable": {"b": "timed out"}}, True),
        ({"unreachable": {"elsewhere": "timed out"}}, False),
        ({"age_s": 30.0, "alive": False}, False),
        ({"age_s": 30.0, "receives": False}, False),
    ],
)
def test_processes_that_would_hold_a_change_up(fields: dict[str, object], check: bool) -> None:
    """Those that have to settle, and could not."""
    report = replace(PROCESS, **fields)  # type: ignore[arg-type]
    assert checks(reports=[report]) == ["processes"] * check


def test_objections_come_in_the_order_of_the_checks() -> None:
    """Those of the shards first, whatever was found first."""
    found = checks(with_c(reason="refused"), [StoreServer("zk", "refused")])
    assert found == ["reachable", "store"]


def test_shards_that_are_down_are_not_needed() -> None:
    """Neither before nor after; one that is to come back is."""
    down = replace(A, state=ShardState.DOWN)
    topology = initial_topology([down, B], cluster=CLUSTER)
    assert concerned(plan(topology, [down, B, C]), topology) == ("b", "c")
    assert concerned(plan(topology, [A, B]), topology) == ("a", "b")
    assert concerned(plan(topology, [down, C]), topology) == ("b", "c")


def test_a_shard_that_answers_is_not_lost() -> None:
    """Marking it as down would lose what is on it."""
    (objection,) = objections_to_loss([WELL, replace(WELL, reason="refused")])
    assert objection.check == "answers"
