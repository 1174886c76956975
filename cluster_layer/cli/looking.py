"""The verbs that look and change nothing."""

import click

from cluster_layer.cli import commands, options, render
from cluster_layer.cli.options import StoreOptions


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
    """Say on which shard channels and groups live."""
    found = commands.locate(store, names)
    options.show(render.places_json(found) if as_json else render.places_table(found))


COMMANDS = (topology, locate)
