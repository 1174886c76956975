"""How far a change has come, and what it waits for: values for whoever watches it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from topology.model import Change, Topology
from topology.ports import ProcessReport
from topology.transitions import Stage, differing, stage_of

#: A process that has not reported for so long is silent: stopped, or cut off from all shards.
SILENT_AFTER_S = 5.0


class Doing(Enum):
    """What a coordinator has just done, or waits for."""

    INSTALLING = "bringing the topology to the shards"
    CLEANING = "cleaning the homes to come"
    COPYING = "copying stored members"
    SETTLING = "waiting for processes to serve both homes"
    DRAINING = "waiting for processes to drain the old homes"
    MOVING = "moving what is left in queues"
    DECIDING = "writing the next step"
    READING = "reading the topology"
    ENDED = "nothing any more"


class Outcome(Enum):
    """How a change, or the driving of it, has ended."""

    FINISHED = "finished"
    ABORTED = "aborted"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Hold:
    """A process that holds a change up, and why."""

    process: str
    host: str
    pid: int
    reason: str

    def __str__(self) -> str:
        return f"{self.process} (host {self.host}, pid {self.pid}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What the coordinator has done for the change."""

    rounds: int = 0
    members_cleaned: int = 0
    members_copied: int = 0
    messages_moved: int = 0
    messages_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One step, or one look while there is something to wait for."""

    epoch: int
    stage: Stage
    doing: Doing
    change: Change | None  #: None: it has ended
    slots_done: int
    slots: int
    tally: Tally
    waited_s: float = 0.0  #: how long this has been waited for
    holds: tuple[Hold, ...] = ()
    shards: Mapping[str, str] = field(default_factory=dict)  #: not reached, and why
    trouble: str | None = None  #: why the store, or a shard, could not be asked
    outcome: Outcome | None = None

    @property
    def waits(self) -> bool:
        return bool(self.holds or self.shards or self.trouble)


def receivers(reports: Iterable[ProcessReport]) -> list[ProcessReport]:
    """The processes that have to settle: those that receive, and live."""
    return [
        report
        for report in reports
        if report.role == "process" and report.receives and report.alive
    ]


def holds_up(
    topology: Topology, reports: Iterable[ProcessReport], without: Collection[str]
) -> tuple[Hold, ...]:
    """The living receivers that have not settled this epoch, except for those not waited for."""
    return tuple(
        Hold(report.id, report.host, report.pid, reason_of(report, topology.epoch))
        for report in receivers(reports)
        if report.settled < topology.epoch and report.id not in without
    )


def reason_of(report: ProcessReport, epoch: int) -> str:
    """Why a process has not settled an epoch, as far as its reports tell."""
    if report.age_s > SILENT_AFTER_S:
        return f"silent for {report.age_s:.0f} s, at epoch {report.epoch} of {epoch}"
    if report.unreachable:
        shards = ", ".join(f"{shard} ({why})" for shard, why in sorted(report.unreachable.items()))
        return f"cannot reach {shards}"
    if report.waiting_for:
        return report.waiting_for
    if report.epoch < epoch:
        return f"at epoch {report.epoch} of {epoch}"
    return "at work"


def slots_left(topology: Topology) -> int:
    """How many slots are not where the change wants them yet."""
    change = topology.change
    return 0 if change is None else len(differing(topology.table, change.table))


def progress_of(topology: Topology, doing: Doing, tally: Tally) -> Progress:
    """Without anything to wait for."""
    change = topology.change
    slots = 0 if change is None else change.slots
    return Progress(
        epoch=topology.epoch,
        stage=stage_of(topology),
        doing=doing,
        change=change,
        slots_done=max(0, slots - slots_left(topology)),
        slots=slots,
        tally=tally,
    )
