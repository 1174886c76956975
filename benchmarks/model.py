"""What is measured: rows, their figures, and the results of one run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

OURS = "cluster"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a row.

    `bars` name a peer and the least ratio ours/peer (the greatest where lower is better); `limit`
    is what our own figure must reach (or not exceed).
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool = True
    bars: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None

    def holds(self, value: float, bar: float) -> bool:
        return value >= bar if self.higher_is_better else value <= bar


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run was made, and with what.

    `load` is the load average when it ended; the run itself is 1 to 2 of it.
    """

    made_at: str
    processor: str
    cores: int
    memory_gib: float
    system: str
    load: float
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """One row measured with one peer, once: in a process and on servers of its own."""

    row: str
    peer: str
    round: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What one cell gave: a figure per metric, or why there is none."""

    cell: Cell
    figures: Mapping[str, float]
    failure: str = ""


class Readings:
    """All readings of a run."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._figures: dict[tuple[str, str, str], list[float]] = {}
        self.failures: dict[tuple[str, str], str] = {}
        for reading in readings:
            cell = reading.cell
            if reading.failure:
                self.failures[cell.row, cell.peer] = reading.failure
            for key, figure in reading.figures.items():
                self._figures.setdefault((cell.row, cell.peer, key), []).append(figure)

    def rounds(self, row: str, peer: str, key: str) -> list[float]:
        return self._figures.get((row, peer, key), [])

    def median(self, row: str, peer: str, key: str) -> float | None:
        figures = self.rounds(row, peer, key)
        return median(figures) if figures else None

    def ratio(self, row: str, peer: str, key: str) -> float | None:
        """Our median divided by the peer's."""
        ours, theirs = self.median(row, OURS, key), self.median(row, peer, key)
        if ours is None or not theirs:
            return None
        return ours / theirs
