"""What a diagnosis is made from, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from cluster_layer.overview import Overview, Permissions, StoreView
from topology.model import Topology
from topology.ports import Leftovers, ProcessReport, ShardStatus

#: Shares of what is allowed: memory, connections, bytes of a topology.
NEARLY_FULL: Final = 0.8
#: What a round trip may take before it is worth a word; the layer gives up after seconds.
SLOW_S: Final = 0.05
#: How many names a text lists.
LISTED: Final = 5


class Severity(IntEnum):
    """How bad it is; the worst counts."""

    OK = 0
    NOTE = 1  # worth knowing, nothing to be done now
    WARNING = 2  # it works, and something will go wrong, or less well
    PROBLEM = 3  # something does not work, or a promise does not hold

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """``rule`` is for programs and never changes; ``where`` is a shard, a process, a server."""

    severity: Severity
    rule: str
    where: str
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known; what could not be found out is missing or None."""

    overview: Overview
    permissions: Mapping[str, Permissions | None] = field(default_factory=dict)  #: by shard id
    leftovers: Mapping[str, Leftovers | None] = field(default_factory=dict)  #: by shard id
    topology_bytes: int = 0
    version: str = ""  #: of this package

    @property
    def topology(self) -> Topology:
        return self.overview.topology

    @property
    def reached(self) -> list[ShardStatus]:
        return [status for status in self.overview.statuses.values() if status.reachable]


Rule: TypeAlias = Callable[[Facts], Iterator[Finding]]
StoreRule: TypeAlias = Callable[[StoreView], Iterator[Finding]]


# -- words


def listed(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - LISTED
    return separator.join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def count(things: Sequence[object], one: str, many: str = "") -> str:
    return f"{len(things)} {one if len(things) == 1 else many or one + 's'}"


def ms(seconds: float | None) -> str:
    return f"{(seconds or 0) * 1000:.1f} ms"


def mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def place(report: ProcessReport) -> str:
    """Where a process is, as an operator looks for it."""
    return f"{report.host}/{report.pid}"
