"""`cluster-layer`: parses, calls one function of `commands`, renders.

Exit codes: 0 done; 1 refused or failed, and provably nothing was changed; 2 wrong usage; 3 it may
or may not have happened: look with `topology show` before trying again.
"""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cluster_layer.cli import commands, render
from cluster_layer.errors import ConfigError
from topology import ClusterError, StoreConfigError

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3


class _Group(click.Group):
    """Turns the project's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(_exit_code(error))


def _exit_code(error: ClusterError) -> int:
    if isinstance(error, StoreConfigError | ConfigError):
        return EXIT_USAGE
    return EXIT_REFUSED if error.definite else EXIT_UNKNOWN


_store = click.option(
    "--store",
    required=True,
    envvar="CLUSTER_LAYER_STORE",
    show_envvar=True,
    metavar="URL",
    help="Where the topology is kept: zookeeper://host:2181/path or file:///path.json.",
)
_store_options = click.option(
    "--store-options",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CLUSTER_LAYER_STORE_OPTIONS",
    show_envvar=True,
    help="A JSON file with the store's options: login, TLS, timeouts.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@click.group(cls=_Group)
@click.version_option(package_name="cluster-layer")
def main() -> None:
    """Set up and look at the topology of a cluster-layer.

    Exit codes: 0 done, 1 refused and nothing changed, 2 wrong usage, 3 outcome unknown.
    """


@main.group("topology")
def topology_group() -> None:
    """The topology: which Redis shard owns which channels and groups."""


@topology_group.command("init")
@_store
@_store_options
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ID=NUMBER",
    help="A shard's share relative to the others' (default 1); may be repeated.",
)
@_as_json
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
def init(
    store: str,
    store_options: Path | None,
    weights: tuple[str, ...],
    as_json: bool,
    shards: tuple[str, ...],
) -> None:
    """Create the first topology of a store, from the URLs of its shards.

    SHARD is redis://[user:password@]host:port[/db], or ID=URL to give the shard a name of its own.
    Refused if the store has a topology already.
    """
    wanted = commands.shards_from(shards, weights)
    created = commands.init(store, _options_from(store_options), wanted)
    _show(render.topology_json(created) if as_json else render.topology_table(created))


@topology_group.command("show")
@_store
@_store_options
@_as_json
def show(store: str, store_options: Path | None, as_json: bool) -> None:
    """Show the topology: its epoch, and each shard's weight, state and slots."""
    found = commands.read(store, _options_from(store_options))
    _show(render.topology_json(found) if as_json else render.topology_table(found))


@main.command("locate")
@_store
@_store_options
@_as_json
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def locate(store: str, store_options: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Say on which shard channels and groups live."""
    found = commands.locate(store, _options_from(store_options), names)
    _show(render.places_json(found) if as_json else render.places_table(found))


def _options_from(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # Not the error's own text: it may quote the file, which holds secrets.
        raise ConfigError(f"--store-options {path}: not readable as JSON") from error
    if not isinstance(options, dict):
        raise ConfigError(f"--store-options {path}: must be a JSON object such as {{}}")
    return options


def _show(output: object) -> None:
    if isinstance(output, str):
        click.echo(output)
        return
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width: nothing needs to be wrapped.
        console = Console(width=200)
    console.print(output)
