"""The verbs that look and change nothing."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.live import Live

from cluster_layer.cli import commands, exits, options, render
from cluster_layer.cli.findings_view import findings_json, findings_table
from cluster_layer.cli.gathering import Gatherer, gathering
from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.site import current_site
from cluster_layer.cli.status_view import SHOWN, status_json, status_tables
from cluster_layer.diagnosis import Finding, Severity, worst
from cluster_layer.overview import Overview

F = TypeVar("F", bound=Callable[..., Any])

#: What `check` ends with, by the worst that it has found.
EXIT_BY_SEVERITY = {
    Severity.OK: 0,
    Severity.NOTE: 0,
    Severity.WARNING: exits.WARNED,
    Severity.PROBLEM: exits.FOUND,
}


@click.group("topology")
def topology() -> None:
    """The topology: which Redis shard owns which channels and groups."""


@topology.command("show")
@options.store_options
@options.as_json
def show(store: StoreOptions, as_json: bool) -> None:
    """Show the topology: its epoch, and each shard's weight, state and slots."""
    found = commands.read(store)
    options.show(render.topology_json(found) if as_json else render.topology_table(found))


@click.command("locate")
@options.store_options
@options.as_json
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def locate(store: StoreOptions, as_json: bool, names: tuple[str, ...]) -> None:
    """Say on which shard channels and groups live.

    While a name's slot moves it is served on two shards, and written to on the first one.
    """
    found = commands.locate(store, names)
    options.show(render.places_json(found) if as_json else render.places_table(found))


def _look_options(command: F) -> F:
    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.1, 60),
            default=2.0,
            show_default=True,
            metavar="SECONDS",
            help="How long a shard may take to answer.",
        ),
        click.option(
            "--topology-cache",
            "copy",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="A process's last good copy of the topology, to look by when ZooKeeper is away; "
            "by default the one of this user.",
        ),
    ):
        command = option(command)
    return command


def _copy_by_settings(given: Path | None) -> Path | None:
    site = current_site()
    return given or (None if site is None else site.config.topology_cache)


@click.command("status")
@options.store_options
@click.option(
    "--watch",
    "watch_s",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(0.1, 3600),
    metavar="[SECONDS]",
    help="Look again every so often (2 s), until Ctrl-C.",
)
@click.option("--all", "everybody", is_flag=True, help="All processes, however many.")
@_look_options
@options.as_json
def status(
    store: StoreOptions,
    watch_s: float | None,
    everybody: bool,
    timeout_s: float,
    copy: Path | None,
    as_json: bool,
) -> None:
    """Show shards, processes, monitors, the store, and the change under way.

    With --watch and --json, one line of JSON for each look.
    """

    kept = _copy_by_settings(copy)

    async def look() -> None:
        async with gathering(store, timeout_s=timeout_s, copy=kept) as gatherer:
            if watch_s is not None:
                await _watch(gatherer, watch_s, everybody=everybody, as_json=as_json)
                return
            overview = await gatherer.overview()
            if as_json:
                options.show(json.dumps(status_json(overview), indent=2))
            else:
                options.show(_tables(overview, everybody))

    with contextlib.nullcontext() if watch_s is None else contextlib.suppress(KeyboardInterrupt):
        asyncio.run(look())


async def _watch(gatherer: Gatherer, every_s: float, *, everybody: bool, as_json: bool) -> None:
    console = Console()
    on_screen = console.is_terminal and not as_json
    live = Live(console=console, auto_refresh=False, screen=True) if on_screen else None
    with live or contextlib.nullcontext():
        while True:
            overview = await gatherer.overview()
            if as_json:
                options.show(json.dumps(status_json(overview)))
            elif live is None:
                options.show(_tables(overview, everybody))
            else:
                live.update(_fitting(console, overview, everybody), refresh=True)
            await asyncio.sleep(every_s)


def _tables(overview: Overview, everybody: bool) -> RenderableType:
    processes = None if everybody else SHOWN
    return status_tables(overview, width=options.width(), processes=processes)


def _fitting(console: Console, overview: Overview, everybody: bool) -> RenderableType:
    """With fewer processes, where a screen has no room for more."""
    shown = _tables(overview, everybody)
    for processes in (SHOWN // 2, SHOWN // 4, 1):
        if len(console.render_lines(shown)) <= console.height:
            break
        shown = status_tables(overview, width=console.width, processes=processes)
    return shown


@click.command("check")
@options.store_options
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    help="A prefix that shards must permit, beside those that processes use now; may be repeated.",
)
@click.option("--quiet", is_flag=True, help="Warnings and problems only.")
@_look_options
@options.as_json
def check(
    store: StoreOptions,
    prefixes: tuple[str, ...],
    quiet: bool,
    timeout_s: float,
    copy: Path | None,
    as_json: bool,
) -> None:
    """Look at everything that a deployment needs; each finding has its remedy.

    Exit codes: 0 nothing worse than a note, 6 a warning, 5 a problem.
    """

    kept = _copy_by_settings(copy)
    site = current_site()
    wanted = prefixes if site is None else (*prefixes, site.config.prefix)

    async def look() -> tuple[Finding, ...]:
        async with gathering(store, timeout_s=timeout_s, copy=kept) as gatherer:
            return await gatherer.findings(wanted)

    found = asyncio.run(look())
    shown = [one for one in found if not quiet or one.severity >= Severity.WARNING]
    options.show(json.dumps(findings_json(shown), indent=2) if as_json else findings_table(shown))
    click.get_current_context().exit(EXIT_BY_SEVERITY[worst(found)])


COMMANDS = (topology, locate, status, check)
