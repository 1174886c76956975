"""Every family of rows and every peer can be measured, in fresh processes on real servers."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.model import OURS, Cell
from benchmarks.rows import ROWS, row_of
from benchmarks.runner import run_cell
from benchmarks.servers import ServerMissing, find_nats

FAMILIES = {row.family: row.name for row in reversed(ROWS)}


@pytest.mark.parametrize("row", FAMILIES.values())
def test_a_quick_cell_gives_every_figure_of_its_row(row: str) -> None:
    """A cell reports a figure that makes sense for each metric of its row, and nothing else."""
    reading = run_cell(Cell(row, OURS, 0), quick=True)
    assert reading.failure == ""
    assert set(reading.figures) == {metric.key for metric in row_of(row).metrics}
    assert all(figure >= 0 for figure in reading.figures.values())
    assert any(figure > 0 for figure in reading.figures.values())


@pytest.mark.parametrize("peer", ["core", "pubsub", "nats", "bare", "redis-benchmark"])
def test_every_peer_can_send(peer: str) -> None:
    """Each peer is set up so that its sends work."""
    if peer == "nats":
        _require_nats()
    if peer == "redis-benchmark" and shutil.which("redis-benchmark") is None:
        pytest.skip("no redis-benchmark on PATH")
    reading = run_cell(Cell("send/100", peer, 0), quick=True)
    assert reading.failure == ""
    assert reading.figures["rate"] > 0


@pytest.mark.parametrize("peer", ["core", "pubsub", "nats"])
def test_every_layer_delivers_to_groups(peer: str) -> None:
    """A cell of a group fails unless every member has received every message exactly once."""
    if peer == "nats":
        _require_nats()
    reading = run_cell(Cell("delivered/10", peer, 0), quick=True)
    assert reading.failure == ""
    assert reading.figures["rate"] > 0


def test_a_cell_that_fails_says_why() -> None:
    """A failed cell is a reading without figures and with the last line of its error."""
    reading = run_cell(Cell("no/such-row", OURS, 0), quick=True)
    assert reading.figures == {}
    assert "no/such-row" in reading.failure


def _require_nats() -> None:
    try:
        find_nats()
    except ServerMissing as missing:
        pytest.skip(str(missing))
