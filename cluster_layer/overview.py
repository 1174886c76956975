"""What an operator sees of a cluster at one moment: values alone; ``lookout`` gathers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from topology.history import Holder
from topology.model import Topology
from topology.ports import ProcessReport, ShardStatus, StoreServer
from topology.progress import SILENT_AFTER_S, Doing, Hold, Progress, Tally, holds_up, progress_of


class Role(Enum):
    """Who needs a permission on a shard."""

    PROCESS = "a process with a layer"
    OPERATOR = "a monitor, or whoever changes the topology"
    CHECK = "`check`, to see more"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a shard refuses the user in its URL."""

    commands: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()  #: patterns
    channels: tuple[str, ...] = ()  #: patterns

    @property
    def all(self) -> tuple[str, ...]:
        """What processes and operators would miss, in words."""
        return (
            *self.commands.get(Role.PROCESS, ()),
            *self.commands.get(Role.OPERATOR, ()),
            *(f"the keys {pattern}" for pattern in self.keys),
            *(f"the channels {pattern}" for pattern in self.channels),
        )


class Condition(Enum):
    """How a process is, by what it told last and when."""

    WELL = "well"
    SILENT = "silent"  # connected, and tells nothing: stopped, or its event loop is blocked
    GONE = "gone"  # its connections have ended; it is forgotten soon


@dataclass(frozen=True, slots=True)
class StoreView:
    """Where the topology is kept, as seen from here."""

    kind: str  #: "zookeeper", "file" or "memory"
    servers: tuple[StoreServer, ...] = ()
    trouble: str | None = None  #: why no topology could be read from it
    empty: bool = False  #: it was read, and has none
    login: bool = False  #: it knows who we are
    unwritable: str | None = None  #: why operators cannot write to it, as far as that was tried


@dataclass(frozen=True, slots=True)
class Overview:
    """One look at the store and at all shards.

    If the store is in trouble, the topology is a copy that may be old.
    """

    topology: Topology
    store: StoreView
    statuses: Mapping[str, ShardStatus] = field(default_factory=dict)  #: by shard id
    processes: Mapping[str, ProcessReport] = field(default_factory=dict)  #: by process id
    leader: Holder | None = None  #: of the monitors
    operator: Holder | None = None  #: whoever changes the topology now

    def progress(self) -> Progress | None:
        """How far the change under way is, and what it waits for; None: there is none."""
        if self.topology.change is None:
            return None
        return progress_of(self.topology, Doing.READING, Tally())

    def holds(self) -> tuple[Hold, ...]:
        """The processes that the change under way waits for."""
        if self.topology.change is None:
            return ()
        return holds_up(self.topology, self.processes.values(), ())

    def applications(self) -> list[ProcessReport]:
        """The processes that are not monitors, by host and pid."""
        return self._of("process")

    def monitors(self) -> list[ProcessReport]:
        """The monitors that are there, by host and pid."""
        return [one for one in self._of("monitor") if condition_of(one) is Condition.WELL]

    def leads(self, monitor: ProcessReport) -> bool:
        """Whether this is the monitor that decides."""
        if self.leader is None:
            return False
        holder = self.leader.operator
        return (holder.host, holder.pid) == (monitor.host, monitor.pid)

    def _of(self, role: str) -> list[ProcessReport]:
        found = [report for report in self.processes.values() if report.role == role]
        return sorted(found, key=lambda report: (report.host, report.pid, report.id))


def condition_of(report: ProcessReport) -> Condition:
    """A process that only sends has no connection that a shard could tell of."""
    if report.age_s <= SILENT_AFTER_S:
        return Condition.WELL
    return Condition.SILENT if report.alive else Condition.GONE
