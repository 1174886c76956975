"""The verbs for a change that is under way, and for what has become of those before."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import click

from cluster_layer.cli import execution, options, render_changes
from cluster_layer.cli.driving import LOOK_EVERY_S, look
from cluster_layer.cli.exits import Found
from cluster_layer.cli.how import How, how_options
from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import Session, carried_through, open_session, run
from cluster_layer.cli.watchers import teller
from topology import SLOTS, transitions
from topology.decisions import OPERATOR_LOCK, Decisions
from topology.model import Topology
from topology.verification import Verification
from topology.verification import verify as verify_topology


@click.command("progress")
@options.store_options
@click.option("--watch", is_flag=True, help="Until the change has ended.")
@options.as_json
def progress(store: StoreOptions, watch: bool, as_json: bool) -> None:
    """Say how far the change under way is, who drives it, and what holds it up."""

    async def show() -> None:
        async with open_session(store) as session:
            holder = await asyncio.to_thread(session.store.holder, OPERATOR_LOCK)
            with teller(as_json=as_json) as told:
                who = "nobody drives it" if holder is None else f"{holder} is at work"
                told.tell("holder", who, holder=None if holder is None else str(holder))
                while True:
                    seen = await look(session)
                    told.show(seen)
                    if not watch or seen.change is None:
                        return
                    await asyncio.sleep(LOOK_EVERY_S)

    run(show())


@click.command("pause")
@options.store_options
@click.option("--reason", default="by its operator", show_default=True)
@click.option("--dry-run", is_flag=True, help="Look and show, and change nothing.")
@options.as_json
def pause(store: StoreOptions, reason: str, dry_run: bool, as_json: bool) -> None:
    """Let the change go no further than to the end of its round; whoever drives it stops."""
    after = _decided(
        store,
        lambda topology: transitions.pause(topology, reason),
        None if dry_run else lambda decisions: decisions.pause(reason),
    )
    _show_change(after, as_json=as_json)


@click.command("throttle")
@options.store_options
@click.argument("slots", type=click.IntRange(1, 4096))
@click.option("--dry-run", is_flag=True, help="Look and show, and change nothing.")
@options.as_json
def throttle(store: StoreOptions, slots: int, dry_run: bool, as_json: bool) -> None:
    """Let the change move at most so many SLOTS at the same time, from its next round on."""
    after = _decided(
        store,
        lambda topology: transitions.throttle(topology, slots),
        None if dry_run else lambda decisions: decisions.throttle(slots),
    )
    _show_change(after, as_json=as_json)


def _decided(
    store: StoreOptions,
    transition: Callable[[Topology], Topology],
    decision: Callable[[Decisions], Coroutine[Any, Any, Topology]] | None,
) -> Topology:
    """The topology after a decision; None: after what the transition alone would make of it."""

    async def decide() -> Topology:
        async with open_session(store) as session:
            after = transition(session.topology)
            return after if decision is None else await carried_through(decision(session.decisions))

    return run(decide())


@click.command("resume")
@options.store_options
@how_options(plans=False, asks=False)
def resume(store: StoreOptions, how: How) -> None:
    """Go on with the change under way, from wherever it is and whoever began it."""
    run(execution.resume(store, how))


@click.command("abort")
@options.store_options
@how_options(plans=False)
def abort(store: StoreOptions, how: How) -> None:
    """End the change under way: undo its round, and keep those that are finished.

    `rollback` then goes back to where it began.
    """
    run(execution.abort(store, how))


@click.command("verify")
@options.store_options
@click.option("--clean", is_flag=True, help="Delete forgotten memberships on former homes.")
@click.option(
    "--within",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Look again for so long: processes need a moment after a change.",
)
@options.as_json
def verify(store: StoreOptions, clean: bool, within: float, as_json: bool) -> None:
    """See whether every shard and process is on the epoch, and nothing is left on old homes."""

    async def look_at_all() -> None:
        async with open_session(store) as session:
            found = await _verified(session, clean=clean)
            deadline = time.monotonic() + within
            while not found.valid and time.monotonic() < deadline:
                await asyncio.sleep(LOOK_EVERY_S)
                found = await _verified(session, clean=clean)
            if as_json:
                click.echo(json.dumps(render_changes.verification_json(found), indent=2))
            else:
                click.echo("\n".join(render_changes.verification_lines(found)))
            if not found.valid:
                raise Found(f"{len(found.flaws)} things are not as they should be")

    run(look_at_all())


async def _verified(session: Session, *, clean: bool) -> Verification:
    topology = await session.decisions.read()
    statuses = await session.lookout.statuses(topology)
    reports = await session.lookout.processes(topology, statuses)
    leftovers = await session.lookout.leftovers(topology, statuses)
    found = verify_topology(topology, statuses, reports.values(), leftovers)
    if not (clean and found.valid and found.forgotten):
        return found
    for shard, left in leftovers.items():
        if left is not None and left.members:
            strange = [slot for slot in range(SLOTS) if topology.owner_of(slot).id != shard]
            await session.cluster.clean_members(topology, shard, strange)
    return await _verified(session, clean=False)


@click.command("history")
@options.store_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@options.as_json
def history(store: StoreOptions, limit: int, as_json: bool) -> None:
    """Show what has happened to the topology: when, what, by whom and why."""
    with store.opened() as opened:
        entries = opened.history(limit)
    if as_json:
        click.echo(json.dumps(render_changes.history_json(entries), indent=2))
    else:
        options.show(render_changes.history_table(entries))


def _show_change(topology: Topology, *, as_json: bool) -> None:
    change = topology.change
    assert change is not None  # noqa: S101 - the transition would have refused
    if as_json:
        shown = {"epoch": topology.epoch, "change": render_changes.change_json(change)}
        click.echo(json.dumps(shown, indent=2))
        return
    state = "goes on" if change.paused is None else f"is paused ({change.paused})"
    click.echo(f"{change.summary!r} {state}, {change.step} slots a round, epoch {topology.epoch}")


COMMANDS = (progress, pause, resume, abort, throttle, verify, history)
