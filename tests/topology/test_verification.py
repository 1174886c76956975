"""A verification finds what is not as it should be, and nothing else."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from tests.topology.strategies import CLUSTER
from topology import transitions
from topology.hashing import slot_of
from topology.memory_cluster import MemoryCluster, MemoryProcess
from topology.model import Operator, Shard, Topology
from topology.planning import initial_topology, plan
from topology.verification import Verification, verify

A, B, C = (Shard(x, f"redis://{x}") for x in "abc")
FIRST = initial_topology([A, B], cluster=CLUSTER)


class Site:
    """Two shards and a process that have settled."""

    def __init__(self) -> None:
        self.topology = FIRST
        self.cluster = MemoryCluster()
        self.process = self.cluster.add(MemoryProcess("p1", host="web-1", pid=7))
        self.install(FIRST)

    def install(self, topology: Topology) -> None:
        self.topology = topology
        for shard in topology.shards:
            self.cluster.shard(shard.id).topology = topology

    async def verified(self, *, clean: bool = False) -> Verification:
        return await verify(self.topology, self.cluster, clean=clean)

    async def findings(self) -> list[str]:
        return [str(finding) for finding in (await self.verified()).findings]


@pytest.fixture
def site() -> Site:
    return Site()


def stranger_of(shard: str) -> str:
    """A name whose home this shard is not."""
    names = (f"name-{number}" for number in range(1000))
    return next(name for name in names if FIRST.owner_of(slot_of(name)).id != shard)


async def test_a_settled_site_is_valid(site: Site) -> None:
    """It says how much was looked at."""
    found = await site.verified()
    assert (found.valid, found.shards, found.processes) == (True, 2, 1)


async def test_shards_that_are_behind_or_away(site: Site) -> None:
    """Each one is named, with what it serves or why it was not reached."""
    site.topology = replace(FIRST, epoch=FIRST.epoch + 1)
    site.process.stopped = True
    site.cluster.shard("a").trouble = "connection refused"
    away, behind, process = await site.findings()
    assert "connection refused" in away
    assert f"b: serves epoch {FIRST.epoch}" in behind
    assert "p1 (host web-1, pid 7)" in process


async def test_a_process_that_has_not_settled(site: Site) -> None:
    """It is named with its host and pid; one that has ended is nobody's concern."""
    site.process.lazy = True
    site.install(replace(FIRST, epoch=FIRST.epoch + 1))
    (finding,) = await site.findings()
    assert "p1 (host web-1, pid 7)" in finding
    site.process.alive = False
    assert await site.findings() == []


async def test_messages_where_nobody_reads(site: Site) -> None:
    """They are counted, with the shard."""
    site.cluster.shard("a").queues[stranger_of("a")] = deque(["1", "2"])
    (finding,) = await site.findings()
    assert "on a" in finding
    assert "2 messages in 1 queues" in finding


async def test_forgotten_memberships_are_no_harm_and_can_be_deleted(site: Site) -> None:
    """They are counted apart; what is at home stays."""
    group = stranger_of("a")
    site.cluster.shard("a").members[group, "x!1"] = True
    site.cluster.shard("b").members[group, "x!1"] = True
    found = await site.verified()
    assert (found.valid, found.forgotten, found.cleaned) == (True, 1, 0)
    found = await site.verified(clean=True)
    assert (found.valid, found.forgotten, found.cleaned) == (True, 0, 1)
    assert (group, "x!1") in site.cluster.shard("b").members


async def test_a_change_under_way(site: Site) -> None:
    """A topology in the middle of a change is not what it should become."""
    begun = transitions.begin(
        FIRST,
        plan(FIRST, [A, B, C], "add c"),
        change_id="1" * 16,
        operator=Operator("ada", "ops-1", 1),
        started_at=0,
        step=64,
    )
    site.install(begun)
    (finding,) = await site.findings()
    assert "add c" in finding
