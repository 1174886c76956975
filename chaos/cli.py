"""`cluster-chaos`: runs scenarios, checks histories. Exit codes: 0 valid, 1 invalid, 2 unknown."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, cycle, product
from pathlib import Path

import click

from chaos.checkers.base import Verdict
from chaos.environments.base import EnvironmentFailed
from chaos.environments.compose_cluster import ComposeCluster
from chaos.environments.existing import ExistingCluster, read_topology
from chaos.environments.local import LocalCluster
from chaos.environments.netns import NamespaceCluster
from chaos.faults import FAULTS
from chaos.history import Event, history_of, parse
from chaos.layers import LAYERS
from chaos.page import page
from chaos.report import Report, as_json, exit_code, judge, summary
from chaos.runner import MakeCluster, NotPossible, Run
from chaos.runner import run as run_scenario
from chaos.scenarios import ALL, SCENARIOS, SMOKE, Scenario
from chaos.slices import history_events
from chaos.totals import Totals, fault_table, saved, told, totals_of
from chaos.workloads import WORKLOADS
from topology.errors import ClusterError

EXIT_NOT_RUN = 3
EXIT_INTERRUPTED = 130
ENDING = (signal.SIGTERM, signal.SIGHUP)
MAX_FAILED = 10  # runs that could not be run to their end, before `volume` gives up
SELECTIONS: Mapping[str, Sequence[str]] = {"all": ALL, "smoke": SMOKE}
ENVIRONMENTS: Mapping[str, MakeCluster] = {
    "local": LocalCluster,
    "netns": NamespaceCluster,
    "compose": ComposeCluster,
}


@click.group()
def main() -> None:
    """Let faults hit a real cluster, and prove what it promises from what was recorded.

    Exit codes: 0 all valid, 1 a promise was broken, 2 nothing proved, 3 not run, 130 interrupted.
    """


@main.command("list")
def list_all() -> None:
    """Name all workloads, faults and scenarios."""
    click.echo("workloads:")
    for name, workload in WORKLOADS.items():
        click.echo(f"  {name:18} {_first_line(workload.meaning)}")
    click.echo("faults:")
    for name, fault in FAULTS.items():
        click.echo(f"  {name:18} {_first_line(fault.__doc__)}")
    click.echo("scenarios: WORKLOAD/FAULT; WORKLOAD/calm (no fault); WORKLOAD/skewed (the shards'")
    click.echo("  clocks are days apart); WORKLOAD/static (no ZooKeeper while processes die);")
    click.echo("  WORKLOAD/storm and WORKLOAD/zookeeper-storm (all mixed); WORKLOAD/changes (all")
    click.echo("  planned changes) and WORKLOAD/change-storm (with other faults);")
    click.echo(f"  all ({len(ALL)} of them: each fault in two workloads); smoke ({len(SMOKE)})")


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


@main.command("run")
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--seed", type=int, help="Same seed, same schedule; drawn at random if not given.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Of writing, per run.")
@click.option("--shards", type=click.IntRange(1), default=3, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--layer",
    "layers",
    type=click.Choice(list(LAYERS)),
    multiple=True,
    default=["cluster-layer"],
    show_default=True,
    help="What is tested; several are compared. The others need cluster-layer[chaos].",
)
@click.option(
    "--environment",
    type=click.Choice(list(ENVIRONMENTS)),
    default="local",
    show_default=True,
    help="local: proxies between processes and shards. netns: network namespaces, as root. "
    "compose: the containers of docker-compose.yml.",
)
@click.option(
    "--topology",
    metavar="URL",
    help="A cluster that runs already, by the store of its topology. Our own processes join it "
    "under a prefix of their own; faults of its shards strike only if they are named.",
)
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
    layers: tuple[str, ...],
    environment: str,
    topology: str | None,
    output: Path | None,
) -> None:
    """Run scenarios one after the other: names as `list` shows them, `all` or `smoke`."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    make = ENVIRONMENTS[environment]
    reports = []
    failed = 0
    try:
        if topology is not None:
            make, shards = _existing(topology)
        for scenario, layer in product(_scenarios(names, by_name=topology is not None), layers):
            what = Run(scenario, seed, seconds, shards, processes, layer=layer, make=make)
            click.echo(_command_of(what))
            try:
                events = _carried_out(what)
            except NotPossible as error:
                click.echo(f"SKIPPED  {error}")
            except EnvironmentFailed as error:
                failed += 1
                click.echo(f"FAILED   {what.scenario.name} was not run to its end: {error}")
            else:
                reports.append(_judged(events, output))
    except ClusterError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(EXIT_NOT_RUN) from error
    _conclude(reports, output, failed)


def _carried_out(what: Run) -> list[Event]:
    """Every event of a run; ends this program when it is interrupted, with nothing left running."""
    try:
        return asyncio.run(_interruptible(what))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("interrupted: nothing is judged", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


async def _interruptible(what: Run) -> list[Event]:
    """Also by SIGTERM and SIGHUP: containers do not end with this program, as processes do."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs in one
    ending = [one for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN]
    for number in ending:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await run_scenario(what, click.echo)
    finally:
        for number in ending:
            loop.remove_signal_handler(number)


def _existing(url: str) -> tuple[MakeCluster, int]:
    """How to join a cluster that runs, and how many shards it has."""
    topology = read_topology(url)
    return partial(ExistingCluster, url=url, topology=topology), len(topology.shards)


@main.command("volume")
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--messages", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first run.")
@click.option("--seconds", type=float, default=30.0, show_default=True, help="Of writing, per run.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="For report.html, report.json and the histories of runs that failed.",
)
def volume_command(
    names: tuple[str, ...], messages: int, seed: int, seconds: float, output: Path | None
) -> None:
    """Run scenarios in turn, each time with the next seed, until so many messages were sent.

    A run is checked when it has ended and its history is dropped if it is valid: memory and disk
    hold one run at a time. Without names: volume/storm.
    """
    totals = Totals()
    reports = []
    failed = 0
    scenarios = cycle(_scenarios(names or ("volume/storm",), by_name=False))
    for scenario, number in zip(scenarios, count(seed), strict=False):
        what = Run(scenario, number, seconds)
        click.echo(_command_of(what))
        try:
            events = asyncio.run(run_scenario(what, lambda _: None))
        except EnvironmentFailed as error:
            failed += 1
            click.echo(f"FAILED   {what.scenario.name} was not run to its end: {error}")
            if failed == MAX_FAILED:
                break
            continue
        report = _judged(events, output, keep_valid=False)
        reports.append(report)
        totals.add(report)
        click.echo(f"-- {totals.sent:,} of {messages:,} messages")
        if totals.sent >= messages:
            break
    _conclude(reports, output, failed)


@main.command("check")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--slices",
    type=click.Path(file_okay=False, path_type=Path),
    help="A directory for the smallest slices that show a violation, as histories of their own.",
)
def check_command(path: Path, slices: Path | None) -> None:
    """Check a saved history again."""
    try:
        with path.open(encoding="utf-8") as lines:
            history = history_of(parse(lines))
    except ClusterError as error:
        click.echo(f"error: {path}: {error}", err=True)
        raise SystemExit(EXIT_NOT_RUN) from error
    report = judge(history)
    click.echo(summary(report))
    if slices is not None:
        slices.mkdir(parents=True, exist_ok=True)
        for number, found in enumerate(report.slices):
            name = f"{path.stem}-{found.invariant}-{number}.jsonl"
            _write(slices / name, history_events(found, report.header))
    raise SystemExit(exit_code([report]))


@main.command("sum")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="REPORT.json...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def sum_command(paths: tuple[Path, ...]) -> None:
    """Add up what several reports have shown; exit code as of one run of them all."""
    reports: list[Report] = []
    for path in paths:
        try:
            reports += saved(path.read_text("utf-8"))
        except (ClusterError, OSError) as error:
            click.echo(f"error: {path}: {error}", err=True)
            raise SystemExit(EXIT_NOT_RUN) from error
    totals = totals_of(reports)
    for line in (*told(totals), "", *fault_table(totals)):
        click.echo(line)
    raise SystemExit(exit_code(reports))


def _write(path: Path, events: Sequence[Event]) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    click.echo(f"  history: {path}")


def _command_of(what: Run) -> str:
    layer = "" if what.layer == "cluster-layer" else f" --layer {what.layer}"
    name, seconds = what.scenario.name, f"{what.seconds:g}"
    return f"-- cluster-chaos run {name} --seed {what.seed} --seconds {seconds}{layer}"


def _scenarios(names: Sequence[str], *, by_name: bool) -> list[Scenario]:
    """`by_name`: what disturbs others is left out of selections."""
    found: list[Scenario] = []
    for name in names:
        if name in SELECTIONS:
            chosen = [SCENARIOS[one] for one in SELECTIONS[name]]
            found += [one for one in chosen if not (by_name and one.disturbs_others)]
        elif name in SCENARIOS:
            found.append(SCENARIOS[name])
        else:
            raise click.BadParameter(f"there is no scenario {name!r}; see `cluster-chaos list`")
    return found


def _judged(events: Sequence[Event], output: Path | None, *, keep_valid: bool = True) -> Report:
    report = judge(history_of(events))
    click.echo(summary(report))
    if report.verdict is Verdict.VALID and not (output and keep_valid):
        return report
    directory = output or Path(tempfile.mkdtemp(prefix="chaos-failed-"))
    directory.mkdir(parents=True, exist_ok=True)
    header = report.header
    of = "" if header.layer == "cluster-layer" else f"-{header.layer}"
    path = directory / f"{header.scenario.replace('/', '-')}-{header.seed}{of}.jsonl"
    _write(path, events)
    return replace(report, history_file=path.name)


def _conclude(reports: Sequence[Report], output: Path | None, failed: int) -> None:
    """`failed` runs did not come to their end, through no fault of the layer's."""
    if not reports:
        click.echo("error: nothing was run", err=True)
        raise SystemExit(EXIT_NOT_RUN)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(as_json(reports), indent=1)
        (output / "report.json").write_text(text, encoding="utf-8")
        (output / "report.html").write_text(page(reports), encoding="utf-8")
        click.echo(f"report: {output / 'report.html'}")
    if len(reports) > 1:
        click.echo("-- all together")
        for line in told(totals_of(reports)):
            click.echo(f"  {line}")
    if failed:
        click.echo(f"{failed} runs did not come to their end")
    raise SystemExit(exit_code(reports) or (EXIT_NOT_RUN if failed else 0))
