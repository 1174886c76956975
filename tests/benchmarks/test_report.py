"""From readings to tables, verdicts and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.bench import Bench, percentile
from benchmarks.model import OURS, Cell, Machine, Metric, Reading, Readings
from benchmarks.plots import draw
from benchmarks.report import as_json, as_markdown, number, table, verdicts
from benchmarks.rows import ROWS, rows_of
from benchmarks.rows.row import Row
from benchmarks.runner import cells_of

MACHINE = Machine(
    "2024-01-01T00:00+00:00", "a processor", 2, 8.0, "Linux 6", 3.5, {"Python": "3.11"}
)


async def _never(_bench: Bench) -> dict[str, float]:
    raise AssertionError("not measured here")


RATE = Metric("rate", "sends", "1/s", bars={"core": 3.0, "pubsub": 1.5})
DELAY = Metric("delay", "delay", "ms", higher_is_better=False, limit=10.0)
ROW = Row("send/1", "one send at a time", (RATE, DELAY), (OURS, "core", "pubsub", "nats"), _never)


def _reading(peer: str, number: int, figures: Mapping[str, float], failure: str = "") -> Reading:
    return Reading(Cell(ROW.name, peer, number), figures, failure)


READINGS = [
    *(_reading(OURS, n, {"rate": rate, "delay": 12.0}) for n, rate in enumerate((900, 1000, 5000))),
    *(_reading("core", n, {"rate": rate, "delay": 24.0}) for n, rate in enumerate((200, 250, 260))),
    _reading("pubsub", 0, {"rate": 800.0}),
    _reading("nats", 0, {}, "it is | not there"),
]


def test_ratios_are_of_medians() -> None:
    """Our median divided by the peer's; one wild round changes nothing."""
    readings = Readings(READINGS)
    assert readings.median(ROW.name, OURS, "rate") == 1000
    assert readings.ratio(ROW.name, "core", "rate") == 4.0
    assert readings.ratio(ROW.name, "nats", "rate") is None


def test_every_bar_gets_a_verdict() -> None:
    """Ratios are held from the bar on; where lower is better, up to the limit."""
    judged = {(v.metric, v.against): v.held for v in verdicts([ROW], Readings(READINGS))}
    assert judged == {
        ("sends", "against core"): True,
        ("sends", "against pubsub"): False,
        ("delay", "ms"): False,
    }


def test_the_table_shows_ratios_and_bars() -> None:
    """A line per figure: ours, then each peer's median with the ratio, and the bar's fate."""
    rate, delay = table([ROW], Readings(READINGS))
    assert rate[3:7] == ["1,000", "250 (4x held 3)", "800 (1.25x MISSED 1.5)", "failed"]
    assert delay[3:5] == ["12 MISSED 10", "24 (0.5x)"]


def test_a_row_that_was_not_measured_is_not_shown() -> None:
    """Nothing is made up for rows without readings."""
    assert table([ROW], Readings([])) == []
    assert list(verdicts([ROW], Readings([]))) == []


def test_markdown_names_the_machine_the_misses_and_the_failures() -> None:
    """The page says where it was made, which bars were missed, and what failed."""
    text = as_markdown([ROW], Readings(READINGS), MACHINE, 3)
    assert "a processor, 2 cores, 8 GiB, Linux 6, load average 3.5" in text
    assert "- one send at a time, sends, against pubsub: 1.25 (bar 1.5)" in text
    assert "- send/1, nats: it is | not there" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {10}


def test_json_keeps_every_round() -> None:
    """Nothing is lost between the cells and the file."""
    document = as_json(READINGS, MACHINE, 3)
    assert len(document["readings"]) == len(READINGS)
    assert document["readings"][0]["figures"] == {"rate": 900, "delay": 12.0}
    assert document["machine"]["versions"] == {"Python": "3.11"}


def test_pictures_are_svg_and_the_same_for_the_same_figures(tmp_path: Path) -> None:
    """One picture per family and one of all ratios; drawing again changes no byte."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        written = draw([ROW], Readings(READINGS), directory)
        assert [path.name for path in written] == ["send.svg", "ratios.svg"]
    for path in first.iterdir():
        assert path.read_text("utf-8").rstrip().endswith("</svg>")
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_rows_without_peers_share_one_picture(tmp_path: Path) -> None:
    """Steps of one thing, such as 1 to 8 shards, are one line with a point for each."""
    rows = [Row(f"shards/{n}", f"{n} shards", (RATE,), (OURS,), _never) for n in (1, 2)]
    readings = [Reading(Cell(row.name, OURS, 0), {"rate": 7.0}) for row in rows]
    (picture,) = draw(rows, Readings(readings), tmp_path)
    text = picture.read_text("utf-8")
    assert all(row.title in text for row in rows)


def test_rounds_take_turns() -> None:
    """Each round measures every cell once and begins with another peer."""
    cells = cells_of([ROW], 2, frozenset({"nats"}))
    assert [(cell.round, cell.peer) for cell in cells] == [
        (0, OURS), (0, "core"), (0, "pubsub"),
        (1, "core"), (1, "pubsub"), (1, OURS),
    ]  # fmt: skip


def test_rows_are_chosen_by_family_or_name() -> None:
    """Words select families and rows; none selects all; an unknown one is refused by name."""
    assert rows_of("") == list(ROWS)
    assert {row.name for row in rows_of("send/1, group")} == {
        "send/1", "group/10", "group/1000", "group/10000",
    }  # fmt: skip
    with pytest.raises(ValueError, match="sent"):
        rows_of("sent")


def test_percentiles_are_values_that_occurred() -> None:
    """A percentile is never between two values, and the last one is the greatest."""
    ordered = [float(n) for n in range(1, 101)]
    assert percentile(ordered, 0.5) == 51
    assert percentile(ordered, 0.99) == 100
    assert percentile([7.0], 0.999) == 7


@pytest.mark.parametrize(("value", "text"), [(1234567.8, "1,234,568"), (3.14159, "3.14"), (0, "0")])
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    """Figures are shown as exactly as they are known."""
    assert number(value) == text
