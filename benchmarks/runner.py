"""Runs cells one after another, in rounds that take turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.model import Cell, Reading
from benchmarks.rows.row import Row

ROOT = Path(__file__).parents[1]
DEADLINE_S = 300.0


def cells_of(rows: Iterable[Row], rounds: int, without: frozenset[str]) -> list[Cell]:
    """Every row with every peer, round by round; each round begins with another peer.

    So a machine that slows down or warms up does it to all of them.
    """
    cells = []
    for number in range(rounds):
        for row in rows:
            peers = [peer for peer in row.peers if peer not in without]
            turn = number % len(peers)
            cells += [Cell(row.name, peer, number) for peer in peers[turn:] + peers[:turn]]
    return cells


def run_cell(cell: Cell, *, quick: bool) -> Reading:
    """Measure one cell in a fresh process; a failure is a reading without figures."""
    command = [sys.executable, "-m", "benchmarks.cell", cell.row, cell.peer]
    if quick:
        command.append("--quick")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Reading(cell, {}, f"no result within {DEADLINE_S:g} s")
    if done.returncode != 0:
        return Reading(cell, {}, (done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return Reading(cell, json.loads(done.stdout.splitlines()[-1]))
