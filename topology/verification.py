"""Whether all is as it should be when no change is under way: values in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from topology.model import Phase, ShardState, Topology
from topology.ports import Leftovers, ProcessReport, ShardStatus
from topology.progress import SILENT_AFTER_S, receivers


@dataclass(frozen=True, slots=True)
class Flaw:
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
    lived. Whoever brings the slot back, by a change or for a lost shard, deletes them first.
    """

    epoch: int
    shards: int
    processes: int
    flaws: tuple[Flaw, ...]
    forgotten: int = 0

    @property
    def valid(self) -> bool:
        return not self.flaws


def verify(
    topology: Topology,
    statuses: Mapping[str, ShardStatus],
    reports: Iterable[ProcessReport],
    leftovers: Mapping[str, Leftovers | None],
) -> Verification:
    """Every shard and every process is on the epoch, and no message waits where nobody reads.

    By shard id; a shard that is blank gets the topology from the first process that writes to it.
    Processes that only send have no duties: they learn an epoch when they write.
    """
    up = [shard.id for shard in topology.shards if shard.state is not ShardState.DOWN]
    living = receivers(reports)
    flaws = [
        *_of_change(topology),
        *(flaw for shard in up for flaw in _of_shard(statuses[shard], topology.epoch)),
        *(flaw for report in living for flaw in _of_process(report, topology.epoch)),
        *(flaw for shard in up for flaw in _of_leftovers(shard, leftovers.get(shard))),
    ]
    forgotten = sum(left.members for shard in up if (left := leftovers.get(shard)))
    return Verification(topology.epoch, len(up), len(living), tuple(flaws), forgotten)


def _of_change(topology: Topology) -> Iterable[Flaw]:
    if topology.change is not None or topology.phase is not Phase.STEADY:
        summary = topology.change.summary if topology.change else ""
        yield Flaw("change", repr(summary), f"is under way ({topology.phase.value})")


def _of_shard(status: ShardStatus, epoch: int) -> Iterable[Flaw]:
    if not status.reachable:
        yield Flaw("shard", status.shard, f"cannot be reached ({status.reason})")
    elif status.epoch and status.epoch != epoch:
        yield Flaw("shard", status.shard, f"serves epoch {status.epoch}, not {epoch}")


def _of_process(report: ProcessReport, epoch: int) -> Iterable[Flaw]:
    where = f"{report.id} (host {report.host}, pid {report.pid})"
    if report.age_s > SILENT_AFTER_S:
        yield Flaw("process", where, f"silent for {report.age_s:.0f} s")
    elif report.settled != epoch:
        reason = f"at epoch {report.epoch}, settled {report.settled}, not {epoch}"
        yield Flaw("process", where, reason)


def _of_leftovers(shard: str, left: Leftovers | None) -> Iterable[Flaw]:
    if left is not None and left.queues:
        what = f"{left.messages} messages in {left.queues} queues that nobody reads there"
        yield Flaw("leftovers", f"on {shard}", what)
