"""`cluster-chaos`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.faults import FAULTS
from chaos.history import Delivery, Header, event_of
from chaos.scenarios import ALL, SCENARIOS, SMOKE
from chaos.workloads import WORKLOADS


def test_list_names_everything() -> None:
    """Each fault with its meaning."""
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in (*WORKLOADS, *FAULTS))
    assert all(fault.__doc__ for fault in FAULTS.values())


def test_there_is_a_scenario_for_each_pair_and_mixtures() -> None:
    """`all` runs every fault in at least two workloads, and every workload."""
    pairs = {f"{workload}/{fault}" for workload in WORKLOADS for fault in FAULTS}
    assert pairs | set(SMOKE) | set(ALL) <= SCENARIOS.keys()
    assert len(ALL) == len(set(ALL))
    for fault in FAULTS:
        assert len([name for name in ALL if name.endswith(f"/{fault}")]) >= 2
    assert {name.partition("/")[0] for name in ALL} == WORKLOADS.keys()


def test_an_unknown_scenario_is_refused() -> None:
    """As wrong usage, before anything is started."""
    result = CliRunner().invoke(main, ["run", "direct/earthquake"])
    assert result.exit_code == 2
    assert "direct/earthquake" in result.output


def saved(path: Path, *deliveries: str) -> str:
    header = Header("direct/calm", 1, 0.0, 5.0, 10.0, 1.0, 60.0, ("P1",))
    events = [
        event_of(header),
        *(event_of(Delivery("p0.0", "c", message, 1.0)) for message in deliveries),
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return str(path)


def test_check_judges_a_saved_history(tmp_path: Path) -> None:
    """By the exit code as well."""
    runner = CliRunner()
    once = runner.invoke(main, ["check", saved(tmp_path / "once", "m1", "m2")])
    twice = runner.invoke(main, ["check", saved(tmp_path / "twice", "m1", "m1")])
    empty = runner.invoke(main, ["check", saved(tmp_path / "empty")])
    assert [once.exit_code, twice.exit_code, empty.exit_code] == [0, 1, 2]
    assert "m1 came to c twice" in twice.output


def test_check_refuses_what_is_no_history(tmp_path: Path) -> None:
    """With a message, not a traceback."""
    path = tmp_path / "history"
    path.write_text("something else\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 3
    assert "line 1 is no event" in result.output


@pytest.mark.slow
def test_run_writes_history_and_reports(tmp_path: Path) -> None:
    """What it wrote can be checked again, with the same result."""
    runner = CliRunner()
    arguments = ["run", "direct/calm", "--seed", "1", "--seconds", "2", "--processes", "1"]
    result = runner.invoke(main, [*arguments, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["verdict"] == "valid"
    again = runner.invoke(main, ["check", str(tmp_path / "direct-calm-1.jsonl")])
    assert again.exit_code == 0, again.output
    summed = runner.invoke(main, ["sum", *[str(tmp_path / "report.json")] * 2])
    assert summed.exit_code == 0, summed.output
    assert "runs: 2 valid, of 1 scenarios; seeds 1 to 1" in summed.output
