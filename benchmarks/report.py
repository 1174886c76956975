"""What a run says: a table for people, the same as Markdown, everything as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.model import OURS, Machine, Metric, Reading, Readings
from benchmarks.rows.row import Row

PEERS = ("core", "pubsub", "nats", "bare")
HEADINGS = ("row", "figure", "unit", OURS, *PEERS, "other")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar and what became of it."""

    row: str
    metric: str
    against: str
    wanted: float
    measured: float | None
    held: bool

    def __str__(self) -> str:
        measured = "not measured" if self.measured is None else number(self.measured)
        return f"{self.row}, {self.metric}, {self.against}: {measured} (bar {number(self.wanted)})"


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: Iterable[Row], readings: Readings) -> list[list[str]]:
    """Lines of cells under HEADINGS; only what was measured."""
    return [
        [row.title, metric.title, metric.unit, *_values(row, metric, readings)]
        for row in rows
        for metric in row.metrics
        if readings.median(row.name, OURS, metric.key) is not None
    ]


def _values(row: Row, metric: Metric, readings: Readings) -> list[str]:
    ours = readings.median(row.name, OURS, metric.key)
    assert ours is not None
    mark = ""
    if metric.limit is not None:
        mark = _mark(metric.holds(ours, metric.limit), metric.limit)
    others = [peer for peer in row.peers if peer not in (OURS, *PEERS)]
    return [
        number(ours) + mark,
        *(_beside(row, metric, peer, readings) for peer in PEERS),
        "; ".join(
            f"{peer} {text}" for peer in others if (text := _beside(row, metric, peer, readings))
        ),
    ]


def _beside(row: Row, metric: Metric, peer: str, readings: Readings) -> str:
    """A peer's median and the ratio ours/peer, marked where there is a bar."""
    theirs = readings.median(row.name, peer, metric.key)
    if theirs is None:
        return "failed" if (row.name, peer) in readings.failures else ""
    ratio = readings.ratio(row.name, peer, metric.key)
    if ratio is None:
        return number(theirs)
    bar = metric.bars.get(peer)
    mark = "" if bar is None else _mark(metric.holds(ratio, bar), bar)
    return f"{number(theirs)} ({number(ratio)}x{mark})"


def _mark(held: bool, bar: float) -> str:
    return f" {'held' if held else 'MISSED'} {bar:g}"


def verdicts(rows: Iterable[Row], readings: Readings) -> Iterator[Verdict]:
    """Every bar of the rows that ran."""
    for row in rows:
        for metric in row.metrics:
            ours = readings.median(row.name, OURS, metric.key)
            if ours is None:
                continue
            if metric.limit is not None:
                held = metric.holds(ours, metric.limit)
                yield Verdict(row.title, metric.title, metric.unit, metric.limit, ours, held)
            for peer, bar in metric.bars.items():
                ratio = readings.ratio(row.name, peer, metric.key)
                held = ratio is not None and metric.holds(ratio, bar)
                yield Verdict(row.title, metric.title, f"against {peer}", bar, ratio, held)


def as_markdown(rows: Sequence[Row], readings: Readings, machine: Machine, rounds: int) -> str:
    lines = [
        "# Results",
        "",
        f"Medians of {rounds} rounds; in brackets our figure divided by the peer's, and the bar "
        "where there is one.",
        "",
        _line(HEADINGS),
        _line(["---"] * 3 + ["---:"] * (len(HEADINGS) - 4) + ["---"]),
        *(_line(cells) for cells in table(rows, readings)),
        "",
        f"{machine.made_at}, {machine.processor}, {machine.cores} cores, "
        f"{machine.memory_gib:g} GiB, {machine.system}, load average {machine.load:g} "
        "(the run itself is 1 to 2 of it; more means that others were at work).",
        ", ".join(f"{name} {version}" for name, version in machine.versions.items()) + ".",
    ]
    missed = [verdict for verdict in verdicts(rows, readings) if not verdict.held]
    if missed:
        lines += ["", "Bars that were missed:", "", *(f"- {verdict}" for verdict in missed)]
    if readings.failures:
        lines += ["", "Cells that failed:", ""]
        lines += [f"- {row}, {peer}: {why}" for (row, peer), why in readings.failures.items()]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def as_json(readings: Iterable[Reading], machine: Machine, rounds: int) -> dict[str, Any]:
    """Every reading of every round."""
    return {
        "machine": asdict(machine),
        "rounds": rounds,
        "readings": [
            {**asdict(reading.cell), "figures": dict(reading.figures), "failure": reading.failure}
            for reading in readings
        ],
    }
