"""Whether all is as it should be when no change is under way; asked as often as one likes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from topology.errors import ClusterError
from topology.hashing import SLOTS
from topology.model import Phase, Shard, ShardState, Topology
from topology.ports import Cluster, Leftovers
from topology.progress import SILENT_AFTER_S, receivers

_AT_ONCE: Final = 8  # shards that are searched at the same time


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    what: str  #: "change", "shard", "process" or "leftovers"
    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} {self.subject}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what was found; ``forgotten`` groups are harmless and expire.

    The memberships of a slot that has moved stay on its old home for as long as they would have
    lived, and the next change that brings the slot back deletes them first.
    """

    epoch: int
    shards: int
    processes: int
    findings: tuple[Finding, ...]
    forgotten: int = 0
    cleaned: int = 0

    @property
    def valid(self) -> bool:
        return not self.findings


async def verify(topology: Topology, cluster: Cluster, *, clean: bool = False) -> Verification:
    """Every shard and every process is on the epoch, and no message waits where nobody reads.

    With ``clean`` forgotten memberships are deleted. The topology has checked itself. Processes
    that only send have no duties: they learn an epoch when they write.
    """
    findings: list[Finding] = []
    if topology.change is not None or topology.phase is not Phase.STEADY:
        summary = topology.change.summary if topology.change else ""
        findings.append(Finding("change", repr(summary), f"is under way ({topology.phase.value})"))
    up = [shard for shard in topology.shards if shard.state is not ShardState.DOWN]
    limit = asyncio.Semaphore(_AT_ONCE)

    async def look(shard: Shard) -> tuple[list[Finding], int, int]:
        async with limit:
            return await _look_at(shard, topology, cluster, clean=clean)

    looks = await asyncio.gather(*map(look, up))
    for found, _, _ in looks:
        findings += found
    reports = (await cluster.processes()).values()
    living = receivers(reports)
    for report in living:
        where = f"{report.id} (host {report.host}, pid {report.pid})"
        if report.age_s > SILENT_AFTER_S:
            findings.append(Finding("process", where, f"silent for {report.age_s:.0f} s"))
        elif report.settled != topology.epoch:
            reason = f"at epoch {report.epoch}, settled {report.settled}, not {topology.epoch}"
            findings.append(Finding("process", where, reason))
    forgotten = sum(left for _, left, _ in looks)
    cleaned = sum(deleted for _, _, deleted in looks)
    return Verification(topology.epoch, len(up), len(living), tuple(findings), forgotten, cleaned)


async def _look_at(
    shard: Shard, topology: Topology, cluster: Cluster, *, clean: bool
) -> tuple[list[Finding], int, int]:
    """Findings, groups with forgotten memberships, and how many of them were deleted."""
    status = await cluster.inspect(shard)
    if not status.reachable:
        return [Finding("shard", shard.id, f"cannot be reached ({status.reason})")], 0, 0
    findings = []
    if status.epoch != topology.epoch:
        reason = f"serves epoch {status.epoch}, not {topology.epoch}"
        findings.append(Finding("shard", shard.id, reason))
    strange = _strange_to(shard, topology)
    cleaned = 0
    try:
        left = await cluster.leftovers(shard.id, strange)
        if left.members and clean and not findings and topology.phase is Phase.STEADY:
            cleaned = await cluster.clean_members(topology, shard.id, strange)
            left = await cluster.leftovers(shard.id, strange)
    except ClusterError as error:
        return [*findings, Finding("shard", shard.id, str(error))], 0, cleaned
    if left.queues:
        findings.append(Finding("leftovers", f"on {shard.id}", _told(left)))
    return findings, left.members, cleaned


def _strange_to(shard: Shard, topology: Topology) -> Collection[int]:
    """The slots for which a shard has to keep nothing."""
    homes = {slot: topology.other_home(slot) for slot in topology.moving}
    return [
        slot
        for slot in range(SLOTS)
        if topology.owner_of(slot).id != shard.id
        and ((other := homes.get(slot)) is None or other.id != shard.id)
    ]


def _told(left: Leftovers) -> str:
    return f"{left.messages} messages in {left.queues} queues that nobody reads there"
