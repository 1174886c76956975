"""`cluster-chaos`: runs scenarios, checks histories. Exit codes: 0 valid, 1 invalid, 2 unknown."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from chaos.checkers import check
from chaos.faults import FAULTS
from chaos.history import Event, history_of, parse
from chaos.page import page
from chaos.report import Report, as_json, exit_code, summary
from chaos.runner import Run
from chaos.runner import run as run_scenario
from chaos.scenarios import SCENARIOS, SMOKE, Scenario
from chaos.workloads import WORKLOADS
from topology.errors import ClusterError

EXIT_NOT_RUN = 3


@click.group()
def main() -> None:
    """Let faults hit a real cluster, and prove what it promises from what was recorded.

    Exit codes: 0 all valid, 1 a promise was broken, 2 nothing proved, 3 not run.
    """


@main.command("list")
def list_all() -> None:
    """Name all workloads, faults and scenarios."""
    click.echo(f"workloads: {', '.join(WORKLOADS)}")
    for name, fault in FAULTS.items():
        meaning = (fault.__doc__ or "").partition("\n")[0]
        click.echo(f"  {name:18} {meaning}")
    click.echo("scenarios: WORKLOAD/calm, WORKLOAD/FAULT, WORKLOAD/storm (all faults); all; smoke")


@main.command("run")
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--seed", type=int, help="Same seed, same schedule; drawn at random if not given.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Of writing, per run.")
@click.option("--shards", type=click.IntRange(2), default=3, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="For histories, report.html and report.json; without it only what failed is kept.",
)
def run_command(
    names: tuple[str, ...],
    seed: int | None,
    seconds: float,
    shards: int,
    processes: int,
    output: Path | None,
) -> None:
    """Run scenarios one after the other: names as `list` shows them, `all` or `smoke`."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    reports = []
    for scenario in _scenarios(names):
        what = Run(scenario, seed, seconds, shards, processes)
        click.echo(f"-- cluster-chaos run {scenario.name} --seed {seed} --seconds {seconds:g}")
        try:
            events = asyncio.run(run_scenario(what, click.echo))
        except ClusterError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(EXIT_NOT_RUN) from error
        reports.append(_judged(events, output))
    _conclude(reports, output)


@main.command("check")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check_command(path: Path) -> None:
    """Check a saved history again."""
    try:
        with path.open(encoding="utf-8") as lines:
            history = history_of(parse(lines))
    except ClusterError as error:
        click.echo(f"error: {path}: {error}", err=True)
        raise SystemExit(EXIT_NOT_RUN) from error
    report = Report(history, check(history))
    click.echo(summary(report))
    raise SystemExit(exit_code([report]))


def _scenarios(names: Sequence[str]) -> list[Scenario]:
    found: list[Scenario] = []
    for name in names:
        if name == "all":
            found += SCENARIOS.values()
        elif name == "smoke":
            found += [SCENARIOS[one] for one in SMOKE]
        elif name in SCENARIOS:
            found.append(SCENARIOS[name])
        else:
            raise click.BadParameter(f"there is no scenario {name!r}; see `cluster-chaos list`")
    return found


def _judged(events: Sequence[Event], output: Path | None) -> Report:
    history = history_of(events)
    report = Report(history, check(history))
    click.echo(summary(report))
    if output is None and exit_code([report]) == 0:
        return report
    directory = output or Path(tempfile.mkdtemp(prefix="chaos-failed-"))
    directory.mkdir(parents=True, exist_ok=True)
    header = history.header
    path = directory / f"{header.scenario.replace('/', '-')}-{header.seed}.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    click.echo(f"  history: {path}")
    return report


def _conclude(reports: Sequence[Report], output: Path | None) -> None:
    if output is not None:
        text = json.dumps(as_json(reports), indent=1)
        (output / "report.json").write_text(text, encoding="utf-8")
        (output / "report.html").write_text(page(reports), encoding="utf-8")
        click.echo(f"report: {output / 'report.html'}")
    code = exit_code(reports)
    if len(reports) > 1:
        click.echo(f"-- {len(reports)} runs: {', '.join(_counts(reports))}")
    raise SystemExit(code)


def _counts(reports: Sequence[Report]) -> list[str]:
    verdicts = [report.verdict for report in reports]
    return [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)]
