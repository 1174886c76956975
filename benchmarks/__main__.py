"""Parses, runs, renders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import report
from benchmarks.machine import this_machine
from benchmarks.model import Cell, Reading, Readings
from benchmarks.plots import draw
from benchmarks.rows import ROWS, rows_of
from benchmarks.rows.row import Row
from benchmarks.runner import ROOT, cells_of, run_cell
from benchmarks.servers import ServerMissing, find_nats

RESULTS = ROOT / "benchmarks" / "results"
LOG_WIDTH = 200  # in a file or a pipe no terminal says how wide it is
PARTIAL_RESULTS = ROOT / "build" / "benchmarks"


@click.command()
@click.option(
    "--rows", "selection", default="", help="Families or rows, comma-separated: send,group/1000."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--quick", is_flag=True, help="Seconds in all: shows that it works, measures nothing."
)
@click.option("--output", type=click.Path(path_type=Path), help="Where the results go.")
def main(selection: str, rounds: int, quick: bool, output: Path | None) -> None:
    """Measure the layer beside its peers; print and write the results.

    A complete run writes to benchmarks/results, a part of one to build/benchmarks. Ctrl-C ends the
    run early.
    """
    try:
        rows = rows_of(selection)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    cells = cells_of(rows, rounds, _missing(console))
    readings: list[Reading] = []
    complete = len(rows) == len(ROWS) and not quick
    try:
        for reading in _run(console, cells, quick=quick):
            readings.append(reading)  # noqa: PERF402 - what was measured before Ctrl-C stays
    except KeyboardInterrupt:
        complete = False
        console.print("interrupted; this is what was measured until now")
    directory = output or (RESULTS if complete else PARTIAL_RESULTS)
    _show(console, rows, Readings(readings))
    _write(rows, readings, directory)
    console.print(f"results: {directory}")


def _missing(console: Console) -> frozenset[str]:
    try:
        find_nats()
    except ServerMissing as missing:
        console.print(f"without peer nats: {missing}")
        return frozenset({"nats"})
    return frozenset()


def _run(console: Console, cells: Sequence[Cell], *, quick: bool) -> Iterator[Reading]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(cells))
        for cell in cells:
            described = f"round {cell.round + 1}, {cell.row}, {cell.peer}"
            progress.update(task, description=described)
            if not console.is_terminal:  # there the bar would show only at the end
                console.print(described)
            reading = run_cell(cell, quick=quick)
            if reading.failure:
                progress.console.print(f"{described}: {reading.failure}", style="red", markup=False)
            yield reading
            progress.advance(task)


def _show(console: Console, rows: Sequence[Row], readings: Readings) -> None:
    table = Table(*report.HEADINGS)
    previous = ""
    for title, *figures in report.table(rows, readings):
        if title != previous:
            table.add_section()
        table.add_row("" if title == previous else title, *figures)
        previous = title
    console.print(table)
    judged = list(report.verdicts(rows, readings))
    for verdict in judged:
        if not verdict.held:
            console.print(f"missed: {verdict}", markup=False)
    if judged:
        console.print(f"{sum(verdict.held for verdict in judged)} of {len(judged)} bars held")


def _write(rows: Sequence[Row], readings: Sequence[Reading], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    machine = this_machine()
    rounds = 1 + max((reading.cell.round for reading in readings), default=0)
    document = json.dumps(report.as_json(readings, machine, rounds), indent=1) + "\n"
    (directory / "results.json").write_text(document, "utf-8")
    text = report.as_markdown(rows, Readings(readings), machine, rounds)
    (directory / "results.md").write_text(text, "utf-8")
    draw(rows, Readings(readings), directory)


if __name__ == "__main__":
    main()
