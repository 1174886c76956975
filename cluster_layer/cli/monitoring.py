"""The verb that watches the shards for as long as it runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from cluster_layer.administration import open_cluster
from cluster_layer.cli import options
from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import run, this_operator
from topology.decisions import Decisions
from topology.errors import StoreUnavailable, TopologyUnavailable
from topology.health import Limits
from topology.model import Topology
from topology.monitor import Event, Monitor, Schedule, What
from topology.ports import OperatorStore

F = TypeVar("F", bound=Callable[..., Any])

_READ_AGAIN_S = 1.0
_LIMITS, _SCHEDULE = Limits(), Schedule()


def _seconds(name: str, default: float, meaning: str) -> Callable[[F], F]:
    return click.option(
        name,
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=meaning,
    )


@click.command("monitor")
@options.store_options
@click.option("--name", help="What to be called in reports (default: host and pid).")
@_seconds(
    "--down-after", _LIMITS.down_after_s, "Out of reach for so long, a shard is marked as down."
)
@click.option(
    "--max-down-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_LIMITS.max_down_share,
    show_default="1/3",
    help="Mark no more than this share of the shards as down; at least one may be.",
)
@_seconds(
    "--quiet-time",
    _LIMITS.quiet_s,
    "Well for so long, a shard that was marked as down is taken back.",
)
@click.option("--returns/--no-returns", default=True, help="Take shards back, or leave it to you.")
@click.option(
    "--return-step",
    type=click.IntRange(1, 4096),
    default=_SCHEDULE.return_step,
    show_default=True,
    help="Slots that move at the same time when a shard is taken back.",
)
@_seconds("--probe-every", _SCHEDULE.probe_every_s, "How often to look at each shard.")
@_seconds(
    "--probe-timeout",
    _SCHEDULE.probe_timeout_s,
    "A shard that does not answer in this time is out of reach.",
)
@options.as_json
def monitor(
    store: StoreOptions,
    name: str | None,
    down_after: float,
    max_down_share: float,
    quiet_time: float,
    returns: bool,
    return_step: int,
    probe_every: float,
    probe_timeout: float,
    as_json: bool,
) -> None:
    """Watch the shards until SIGTERM: mark lost ones as down, take them back when they are well.

    Run two or three, on different hosts; one leads. What it decides, and on what evidence, it
    prints and keeps in the history. While the store is away it decides nothing and goes on looking.
    """
    limits = Limits(
        down_after_s=down_after,
        gap_s=max(_LIMITS.gap_s, 2 * (probe_every + probe_timeout)),
        quiet_s=quiet_time,
        max_down_share=max_down_share,
    )
    schedule = Schedule(
        probe_every_s=probe_every,
        probe_timeout_s=probe_timeout,
        returns=returns,
        return_step=return_step,
    )
    tell = _tell_as_json if as_json else _tell
    called = name or f"monitor-{socket.gethostname()}-{os.getpid()}"
    run(_monitor(store, called, limits, schedule, tell))


async def _monitor(
    options: StoreOptions,
    name: str,
    limits: Limits,
    schedule: Schedule,
    tell: Callable[[Event], None],
) -> None:
    with options.opened() as store:
        try:
            topology = await _first_topology(store, tell)
            async with open_cluster(
                topology, name=name, endpoint_for=options.endpoint_for
            ) as cluster:
                watching = Monitor(
                    store,
                    cluster,
                    name=name,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    limits=limits,
                    schedule=schedule,
                    tell=tell,
                )
                await watching.run()
        except asyncio.CancelledError:
            return  # SIGTERM or Ctrl-C: this is how it ends


async def _first_topology(store: OperatorStore, tell: Callable[[Event], None]) -> Topology:
    """Waits for a store that is away, or has no topology yet."""
    decisions = Decisions(store, this_operator())
    told = False
    while True:
        try:
            return await decisions.read()
        except (StoreUnavailable, TopologyUnavailable) as error:
            if not told:
                tell(Event(What.IS_IN_TROUBLE, str(error)))
            told = True
        await asyncio.sleep(_READ_AGAIN_S)


def _tell(event: Event) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{now} {event.what.value}: {event.text}")


def _tell_as_json(event: Event) -> None:
    now = datetime.now(UTC).timestamp()
    line = {
        "at": now,
        "event": event.what.value,
        "text": event.text,
        "evidence": dict(event.evidence),
    }
    click.echo(json.dumps(line))


COMMANDS = (monitor,)
