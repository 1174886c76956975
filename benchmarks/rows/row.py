"""What a row is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.model import OURS, Metric
from benchmarks.peers import PEERS

Measure = Callable[[Bench], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the benchmark: `family/what`, measured with each of its peers."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    peers: tuple[str, ...]
    measure: Measure
    shards: int = 1

    def __post_init__(self) -> None:
        unknown = set(self.peers) - PEERS.keys()
        if unknown or OURS not in self.peers:
            raise ValueError(f"row {self.name}: peers {self.peers} (unknown: {unknown or 'none'})")

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]
