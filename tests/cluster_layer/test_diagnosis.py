"""The rules of a diagnosis, each with facts that break it and facts that do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from cluster_layer.diagnosis import (
    Facts,
    Finding,
    Severity,
    diagnose,
    diagnose_store,
    worst,
)
from cluster_layer.overview import Condition, Overview, Permissions, Role, StoreView, condition_of
from topology.history import Holder
from topology.model import Operator, Shard, ShardState, Topology
from topology.planning import initial_topology
from topology.ports import Leftovers, ProcessReport, ShardStatus, StoreServer

OK, NOTE, WARNING, PROBLEM = Severity
IDS = ("a", "b", "c")
TOPOLOGY = replace(
    initial_topology([Shard(one, f"redis://{one}") for one in IDS], cluster="0" * 16), epoch=7
)
ZOOKEEPER = StoreView(
    "zookeeper",
    servers=(
        StoreServer("z1:2181", latency_s=0.01, role="leader"),
        StoreServer("z2:2181", latency_s=0.01, role="follower"),
        StoreServer("z3:2181", latency_s=0.01, role="follower"),
    ),
    login=True,
)


def status(shard: str, **more: Any) -> ShardStatus:
    well: dict[str, Any] = {
        "latency_s": 0.001,
        "version": "Redis 7.0.15",
        "mode": "standalone",
        "role": "master",
        "replicas": 0,
        "incarnation": f"{shard * 16}",
        "epoch": TOPOLOGY.epoch,
        "memory_bytes": 10**6,
        "max_memory_bytes": 10**9,
        "max_memory_policy": "noeviction",
        "persistence": "none",
        "connections": 10,
        "max_connections": 10_000,
        "clock_offset_s": 0.01,
    }
    return ShardStatus(shard, **{**well, **more})


def process(process_id: str, **more: Any) -> ProcessReport:
    well: dict[str, Any] = {
        "role": "process",
        "host": "web-1",
        "pid": 100,
        "prefix": "asgi",
        "version": "0.1.0",
        "receives": True,
        "alive": True,
        "epoch": TOPOLOGY.epoch,
        "settled": TOPOLOGY.epoch,
        "unreachable": {},
        "waiting_for": None,
        "age_s": 0.5,
    }
    return ProcessReport(process_id, **{**well, **more})


def monitor(name: str, pid: int, **more: Any) -> ProcessReport:
    return process(name, role="monitor", pid=pid, receives=False, alive=False, **more)


def facts(
    *statuses: ShardStatus,
    processes: Iterable[ProcessReport] = (process("p1"),),
    monitored: bool = True,
    store: StoreView = ZOOKEEPER,
    topology: Topology = TOPOLOGY,
    **more: Any,
) -> Facts:
    """All is well, but for what is given; `statuses` replace those of their shards."""
    monitors = [monitor("m1", 1), monitor("m2", 2)] if monitored else []
    overview = Overview(
        topology,
        store,
        statuses={**{one: status(one) for one in IDS}, **{s.shard: s for s in statuses}},
        processes={report.id: report for report in (*processes, *monitors)},
        leader=Holder(Operator("cluster-layer monitor", "web-1", 1), 0.0),
    )
    given: dict[str, Any] = {
        "permissions": {one: Permissions() for one in IDS},
        "leftovers": {one: Leftovers(0, 0, 0) for one in IDS},
        "topology_bytes": 9000,
        "version": "0.1.0",
    }
    return Facts(overview, **{**given, **more})


def found(by: Facts, rule: str) -> list[tuple[Severity, str]]:
    return [(one.severity, one.where) for one in diagnose(by) if one.rule == rule]


def text(findings: Iterable[Finding], rule: str) -> str:
    return " ".join(f"{one.what} {one.remedy}" for one in findings if one.rule == rule)


def test_all_is_well() -> None:
    """Nothing to complain of, and every rule has said something."""
    findings = diagnose(facts())
    assert {one.severity for one in findings} == {OK}
    assert worst(findings) is OK
    assert len({one.rule for one in findings}) >= 20


def test_the_worst_comes_first() -> None:
    """And counts."""
    findings = diagnose(facts(status("a", persistence="aof"), status("b", role="slave")))
    severities = [one.severity for one in findings]
    assert severities == sorted(severities, reverse=True)
    assert worst(findings) is PROBLEM
    assert worst([]) is OK


@pytest.mark.parametrize(
    ("rule", "broken", "severity"),
    [
        ("shard.reachable", {"reason": "no answer"}, PROBLEM),
        ("shard.reachable", {"role": "slave"}, PROBLEM),
        ("shard.reachable", {"latency_s": 0.2}, WARNING),
        ("shard.version", {"version": "Redis 6.0.16"}, PROBLEM),
        ("shard.mode", {"mode": "cluster"}, PROBLEM),
        ("shard.memory", {"memory_bytes": 9 * 10**8}, WARNING),
        ("shard.eviction", {"max_memory_policy": "allkeys-lfu"}, PROBLEM),
        ("shard.persistence", {"persistence": "rdb"}, WARNING),
        ("shard.persistence", {"persistence": None}, NOTE),
        ("shard.replicas", {"replicas": 2}, NOTE),
        ("shard.connections", {"connections": 9_000}, WARNING),
        ("shard.clock", {"clock_offset_s": -90.0}, NOTE),
        ("epoch.shards", {"epoch": 6}, WARNING),
        ("epoch.shards", {"epoch": 8}, PROBLEM),
    ],
)
def test_what_one_shard_says(rule: str, broken: dict[str, Any], severity: Severity) -> None:
    """The shard is named, there is a remedy, and nobody says that this rule holds."""
    findings = [one for one in diagnose(facts(status("b", **broken))) if one.rule == rule]
    (finding,) = [one for one in findings if one.where == "b"]
    assert finding.severity is severity
    assert finding.remedy
    assert OK not in {one.severity for one in findings}


def test_versions_may_be_mixed_while_they_are_upgraded() -> None:
    assert found(facts(status("a", version="Valkey 8.0.1")), "shard.version") == [(NOTE, "shards")]
    assert found(facts(status("a", version=None)), "shard.version") == [(NOTE, "shards")]


def test_shards_without_a_limit_are_told_together() -> None:
    without = [status(one, max_memory_bytes=0) for one in IDS]
    assert found(facts(*without), "shard.memory") == [(NOTE, "shards")]
    evicting = status("a", max_memory_bytes=0, max_memory_policy="allkeys-lru")
    assert found(facts(evicting), "shard.eviction") == [(WARNING, "a")]


def test_one_server_with_two_names() -> None:
    same = status("b", incarnation="a" * 16)
    assert found(facts(same), "shard.alone") == [(WARNING, "a")]
    assert found(facts(), "shard.alone") == []


def test_permissions_by_who_needs_them() -> None:
    """A process that cannot work is worse than an operator who cannot."""
    refused = Permissions(
        {Role.PROCESS: ("get",), Role.OPERATOR: ("rpop",), Role.CHECK: ("dbsize",)},
        keys=("asgi:*",),
        channels=("asgi:*",),
    )
    made = facts(permissions={"a": refused, "b": None, "c": Permissions()})
    expected = [(PROBLEM, "a")] * 3 + [(WARNING, "a"), (NOTE, "a"), (NOTE, "b")]
    assert found(made, "shard.permissions") == expected
    words = text(diagnose(made), "shard.permissions")
    assert "+get" in words
    assert "~asgi:*" in words
    assert "&asgi:*" in words


def test_a_shard_that_is_down() -> None:
    """It is told of, and that nobody reaches it is no problem more."""
    shards = tuple(
        replace(shard, state=ShardState.DOWN) if shard.id == "c" else shard
        for shard in TOPOLOGY.shards
    )
    table = replace(
        TOPOLOGY.table,
        owners=tuple("a" if owner == "c" else owner for owner in TOPOLOGY.table.owners),
    )
    down = replace(TOPOLOGY, shards=shards, table=table)
    made = facts(ShardStatus("c", "refused"), topology=down)
    assert found(made, "shard.down") == [(WARNING, "c")]
    assert found(made, "shard.reachable") == [(OK, "shards")]
    assert found(made, "topology.balance") == [(NOTE, "topology")]


def test_what_is_left_behind() -> None:
    left = {"a": Leftovers(2, 30, 4), "b": None}
    assert found(facts(leftovers=left), "shard.leftovers") == [(NOTE, "a")]


def test_a_topology_that_is_nearly_too_large() -> None:
    assert found(facts(topology_bytes=500_000), "topology.size") == [(WARNING, "topology")]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (process("p", age_s=60.0, epoch=3), [(WARNING, "web-1/100")]),
        (process("p", epoch=6), [(WARNING, "web-1/100")]),
        (process("p", age_s=60.0, alive=False), [(NOTE, "processes")]),
        (process("p"), [(OK, "processes")]),
    ],
)
def test_processes(report: ProcessReport, expected: list[tuple[Severity, str]]) -> None:
    """Silent, behind, gone, well."""
    assert found(facts(processes=[report]), "process.well") == expected


def test_conditions() -> None:
    """One that only sends has no connection that a shard tells of."""
    assert condition_of(process("p", alive=False)) is Condition.WELL
    assert condition_of(process("p", age_s=9.0)) is Condition.SILENT
    assert condition_of(process("p", age_s=9.0, alive=False)) is Condition.GONE


def test_versions_of_processes() -> None:
    mixed = [process("p1"), process("p2", version="0.2.0")]
    assert found(facts(processes=mixed), "process.version") == [(NOTE, "processes")]
    gone = process("p2", version="0.2.0", age_s=99.0, alive=False)
    assert found(facts(processes=[process("p1"), gone]), "process.version") == [(OK, "processes")]
    assert found(facts(version="9.9"), "process.version") == [(NOTE, "processes")]


def test_shards_that_processes_cannot_reach() -> None:
    """Some of them: a warning. All of them: a problem. One that is no shard any more: nothing."""
    cut = {"b": "timed out", "gone": "refused"}
    some = [process("p1", unreachable=cut), process("p2")]
    assert found(facts(processes=some), "process.reaches") == [(WARNING, "b")]
    everybody = facts(processes=[process("p1", unreachable=cut)], monitored=False)
    assert found(everybody, "process.reaches") == [(PROBLEM, "b")]
    stranger = [process("p1", unreachable={"gone": "refused"})]
    assert found(facts(processes=stranger), "process.reaches") == [(OK, "processes")]


def test_monitors() -> None:
    """None, one alone, and several of which none leads."""
    assert found(facts(monitored=False), "monitor.running") == [(WARNING, "monitors")]
    alone = facts(processes=[monitor("m1", 1)], monitored=False)
    assert found(alone, "monitor.running") == [(NOTE, "monitors")]
    two = [monitor("m8", 8), monitor("m9", 9)]
    leaderless = facts(processes=two, monitored=False)
    assert found(leaderless, "monitor.running") == [(WARNING, "monitors")]
    stopped = facts(processes=[monitor("m1", 1, age_s=30.0)], monitored=False)
    assert found(stopped, "monitor.running") == [(WARNING, "monitors")]


def by_store(view: StoreView, rule: str) -> list[tuple[Severity, str]]:
    return [(one.severity, one.where) for one in diagnose_store(view) if one.rule == rule]


def ensemble(*servers: StoreServer) -> StoreView:
    return replace(ZOOKEEPER, servers=servers)


def test_an_ensemble() -> None:
    """Whole; one lost of three is one from the end of the quorum; an even number wins nothing."""
    z1, z2, z3 = ZOOKEEPER.servers
    lost = replace(z3, reason="refused")
    assert by_store(ZOOKEEPER, "store.quorum") == [(OK, "store")]
    assert by_store(ensemble(z1, z2, lost), "store.quorum") == [(WARNING, "store")]
    assert by_store(ensemble(z1, z2, lost), "store.reachable") == [(WARNING, "z3:2181")]
    assert (NOTE, "store") in by_store(ensemble(z1, z2), "store.quorum")
    assert by_store(ensemble(z1), "store.quorum") == [(NOTE, "store")]
    assert by_store(ensemble(replace(z1, latency_s=2.0), z2, z3), "store.reachable")[0] == (
        NOTE,
        "z1:2181",
    )


def test_servers_that_are_no_ensemble() -> None:
    """Each would hold a topology of its own."""
    z1, z2, z3 = ZOOKEEPER.servers
    two_leaders = ensemble(z1, replace(z2, role="leader"), z3)
    assert (PROBLEM, "store") in by_store(two_leaders, "store.quorum")
    standalone = ensemble(z1, z2, replace(z3, role="standalone"))
    assert (PROBLEM, "store") in by_store(standalone, "store.quorum")


def test_a_store_that_is_away_refuses_or_is_empty() -> None:
    """Each has its own remedy."""
    away = replace(ZOOKEEPER, trouble="no answer")
    refused = replace(ZOOKEEPER, trouble="NoAuthError()")
    empty = replace(ZOOKEEPER, trouble="it has no topology", empty=True)
    remedies = [text(diagnose_store(view), "store.reachable") for view in (away, refused, empty)]
    for remedy, word in zip(remedies, ("traffic goes on", "digest", "init"), strict=True):
        assert word in remedy
    assert by_store(away, "store.access") == []


def test_who_may_write() -> None:
    """Without a login, everybody may."""
    assert by_store(ZOOKEEPER, "store.access") == [(OK, "store")]
    assert (NOTE, "store") in by_store(replace(ZOOKEEPER, login=False), "store.access")
    unwritable = replace(ZOOKEEPER, unwritable="NoAuthError()")
    assert by_store(unwritable, "store.access") == [(WARNING, "store")]
    assert by_store(replace(ZOOKEEPER, kind="file", login=False), "store.access") == [(OK, "store")]
