"""The verbs that change the topology."""

import click

from cluster_layer.cli import commands, options, render
from cluster_layer.cli.options import StoreOptions


@click.command("init")
@options.store_options
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ID=NUMBER",
    help="A shard's share relative to the others' (default 1); may be repeated.",
)
@options.as_json
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
def init(
    store: StoreOptions, weights: tuple[str, ...], as_json: bool, shards: tuple[str, ...]
) -> None:
    """Create the first topology of a store, from the URLs of its shards.

    SHARD is redis://[user:password@]host:port[/db], or ID=URL to give the shard a name of its own.
    Refused if the store has a topology already.
    """
    wanted = commands.shards_from(shards, weights)
    created = commands.init(store, wanted)
    options.show(render.topology_json(created) if as_json else render.topology_table(created))


COMMANDS = (init,)
