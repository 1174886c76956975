"""Readings as SVG pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.model import OURS, Metric, Readings
from benchmarks.rows.row import Row

_COLOURS = {
    OURS: "#1b7837",
    "core": "#b2182b",
    "pubsub": "#ef8a62",
    "nats": "#2166ac",
}
_OTHER_COLOUR = "#999999"


def draw(rows: Sequence[Row], readings: Readings, directory: Path) -> list[Path]:
    """One file per family with all its rows, and one with every ratio."""
    # Text stays text and ids depend on content alone, so that equal figures give equal files.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    measured = [
        row for row in rows if readings.median(row.name, OURS, row.metrics[0].key) is not None
    ]
    written = []
    for family, members in groupby(measured, key=lambda row: row.family):
        written.append(_save(_family(list(members), readings), directory / f"{family}.svg"))
    if any(_ratios(row, readings) for row in measured):
        written.append(_save(_overview(measured, readings), directory / "ratios.svg"))
    return written


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends lines of path data with blanks.
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", "utf-8")
    return path


def _family(rows: Sequence[Row], readings: Readings) -> Figure:
    if len(rows) > 1 and all(row.peers == (OURS,) for row in rows):
        return _steps(rows, readings)
    figure = Figure(figsize=(1 + 3.6 * len(rows), 3.6), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        _bars(axes, row, readings)
    return figure


def _steps(rows: Sequence[Row], readings: Readings) -> Figure:
    """Our first figure over the rows of a family that has no peers."""
    figure = Figure(figsize=(1.6 + 1.2 * len(rows), 3.6), layout="constrained")
    axes = figure.subplots()
    metric = rows[0].metrics[0]
    medians = [readings.median(row.name, OURS, metric.key) or 0.0 for row in rows]
    axes.plot(range(len(rows)), medians, marker="o", color=_COLOURS[OURS])
    for place, row in enumerate(rows):
        rounds = readings.rounds(row.name, OURS, metric.key)
        axes.scatter([place] * len(rounds), rounds, s=8, color="black", zorder=3)
    axes.set_xticks(range(len(rows)), [row.title.replace(", ", ",\n") for row in rows])
    _finish(axes, metric)
    return figure


def _finish(axes: Axes, metric: Metric) -> None:
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{metric.title}, {metric.unit}".rstrip(", "))
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, row: Row, readings: Readings) -> None:
    """The medians of a row's first figure as bars, each round as a dot."""
    metric = row.metrics[0]
    peers = [peer for peer in row.peers if readings.rounds(row.name, peer, metric.key)]
    for place, peer in enumerate(peers):
        rounds = readings.rounds(row.name, peer, metric.key)
        median = readings.median(row.name, peer, metric.key) or 0.0
        axes.bar(place, median, color=_COLOURS.get(peer, _OTHER_COLOUR), width=0.7)
        axes.scatter([place] * len(rounds), rounds, s=8, color="black", zorder=3)
    axes.set_xticks(range(len(peers)), peers, rotation=30, ha="right")
    axes.set_title(row.title, fontsize=9, wrap=True)
    _finish(axes, metric)


def _ratios(row: Row, readings: Readings) -> dict[str, float]:
    """How many times better we are by a row's first figure, by peer."""
    metric = row.metrics[0]
    ratios = {}
    for peer in _COLOURS:
        ratio = readings.ratio(row.name, peer, metric.key) if peer != OURS else None
        if ratio:
            ratios[peer] = ratio if metric.higher_is_better else 1 / ratio
    return ratios


def _overview(rows: Sequence[Row], readings: Readings) -> Figure:
    shown = [(row, ratios) for row in rows if (ratios := _ratios(row, readings))]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (_, ratios) in enumerate(shown):
        for peer, ratio in ratios.items():
            label = peer if place == 0 else None
            axes.scatter(ratio, place, color=_COLOURS[peer], s=36, label=label, zorder=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [row.title for row, _ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("how many times better than the peer (right of 1: ahead)")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure
