"""The verbs that change the topology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cluster_layer.cli import commands, execution, options, render, wishes
from cluster_layer.cli.completion import complete_shards
from cluster_layer.cli.execution import MakePlan
from cluster_layer.cli.how import How, how_options
from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import Session, run
from cluster_layer.cli.wishes import Wish
from topology.plans import Plan, decode_plan
from topology.prechecks import CHECKS


def _wishing(*wanted: Wish) -> MakePlan:
    async def make(session: Session) -> Plan:
        return wishes.plan_of(await session.decisions.read(), wanted)

    return make


def _added(specification: str, weight: float | None) -> Wish:
    (shard,) = commands.shards_from([specification], [])
    return wishes.add(commands.weighted(shard, weight))


@click.command("init")
@options.store_options
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ID=NUMBER",
    help="A shard's share relative to the others' (default 1); may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show the topology, and create nothing.")
@options.as_json
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
def init(
    store: StoreOptions,
    weights: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    shards: tuple[str, ...],
) -> None:
    """Create the first topology of a store, from the URLs of its shards.

    SHARD is redis://[user:password@]host:port[/db], or ID=URL to give the shard a name of its own.
    Refused if the store has a topology already.
    """
    wanted = commands.shards_from(shards, weights)
    created = run(commands.init(store, wanted, dry_run=dry_run))
    options.show(render.topology_json(created) if as_json else render.topology_table(created))


@click.group("shard")
def shard() -> None:
    """Add, drain, remove, weigh and mark shards: plan, ask, and move their slots."""


@shard.command("add")
@options.store_options
@how_options(plans=True)
@click.option("--weight", type=float, help="Its share relative to the others' (default 1).")
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
def add(store: StoreOptions, weight: float | None, shards: tuple[str, ...], how: How) -> None:
    """Add shards; they get their share of the slots from all others.

    SHARD is redis://[user:password@]host:port[/db], or ID=URL.
    """
    make = _wishing(*(_added(shard, weight) for shard in shards))
    run(execution.carry_out(store, make, how))


@shard.command("drain")
@options.store_options
@how_options(plans=True)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_shards)
def drain(store: StoreOptions, ids: tuple[str, ...], how: How) -> None:
    """Move all slots away from shards, and keep them; `shard mark ID up` brings them back."""
    run(execution.carry_out(store, _wishing(*map(wishes.drain, ids)), how))


@shard.command("remove")
@options.store_options
@how_options(plans=True)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_shards)
def remove(store: StoreOptions, ids: tuple[str, ...], how: How) -> None:
    """Move all slots away from shards, and forget them."""
    run(execution.carry_out(store, _wishing(*map(wishes.remove, ids)), how))


@shard.command("weight")
@options.store_options
@how_options(plans=True)
@click.argument("shard_id", metavar="ID", shell_complete=complete_shards)
@click.argument("weight", type=float)
def weight(store: StoreOptions, shard_id: str, weight: float, how: How) -> None:
    """Give a shard another share, relative to the others'."""
    run(execution.carry_out(store, _wishing(wishes.weigh(shard_id, weight)), how))


@shard.group("mark")
def mark() -> None:
    """Mark shards as up, by a plan, or as down, at once."""


@mark.command("up")
@options.store_options
@how_options(plans=True)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_shards)
def mark_up(store: StoreOptions, ids: tuple[str, ...], how: How) -> None:
    """Take shards back that are down, or that were drained."""
    run(execution.carry_out(store, _wishing(*map(wishes.mark_up, ids)), how))


@mark.command("down")
@options.store_options
@how_options(plans=True, drives=False)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_shards)
def mark_down(store: StoreOptions, ids: tuple[str, ...], how: How) -> None:
    """Give the slots of lost shards to the others, at once; what is on them is lost."""
    run(execution.mark_down(store, ids, how))


@click.command("plan")
@options.store_options
@click.option("--add", "added", multiple=True, metavar="SHARD", help="URL or ID=URL.")
@click.option("--drain", "drained", multiple=True, metavar="ID", shell_complete=complete_shards)
@click.option("--remove", "removed", multiple=True, metavar="ID", shell_complete=complete_shards)
@click.option("--weight", "weights", multiple=True, metavar="ID=NUMBER", help="Of any shard.")
@click.option("--mark-up", "marked_up", multiple=True, metavar="ID", shell_complete=complete_shards)
@click.option("--balance", is_flag=True, help="Bring every shard to its share.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the plan, passwords included, for `apply`.",
)
@options.as_json
def plan(
    store: StoreOptions,
    added: tuple[str, ...],
    drained: tuple[str, ...],
    removed: tuple[str, ...],
    weights: tuple[str, ...],
    marked_up: tuple[str, ...],
    balance: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Plan a change that may do several things at once, show it and save it for `apply`.

    To replace a shard: --add NEW --remove OLD.
    """
    wanted = [
        *(_added(specification, None) for specification in added),
        *map(wishes.drain, drained),
        *map(wishes.remove, removed),
        *(wishes.weigh(*commands.weight_from(weight)) for weight in weights),
        *map(wishes.mark_up, marked_up),
        *([wishes.balance()] if balance else []),
    ]
    if not wanted:
        raise click.UsageError("say what to plan: --add, --drain, --remove, --weight, ...")
    # A plan may be made while something speaks against it; `apply` looks again.
    how = How(dry_run=True, as_json=as_json, out=out, forced=tuple(CHECKS))
    run(execution.carry_out(store, _wishing(*wanted), how))


@click.command("apply")
@options.store_options
@how_options(plans=True)
@click.argument("file", metavar="PLAN", type=click.File("rb"))
def apply(store: StoreOptions, file: Any, how: How) -> None:
    """Execute exactly the plan in the file PLAN; refused if the epoch has moved on since."""
    saved = decode_plan(file.read())

    async def make(_session: Session) -> Plan:
        return saved

    run(execution.carry_out(store, make, how))


@click.command("rollback")
@options.store_options
@how_options(plans=True)
def rollback(store: StoreOptions, how: How) -> None:
    """Go back to the table and the shards before the last change, by a plan like any other."""

    async def make(session: Session) -> Plan:
        return await session.decisions.rollback_plan()

    run(execution.carry_out(store, make, how))


COMMANDS = (init, shard, plan, apply, rollback)
