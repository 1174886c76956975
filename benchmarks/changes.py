"""Ten changes of the topology under load: nothing lost, and what they cost in latency.

``scripts/bench changes``. Several processes write to each other and read, by every way there is,
over three shards and a fourth that comes and goes, on a real ZooKeeper; every change is one call of
the operator's command line. Exits with 1 if anything was lost, came twice or out of order.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.machine import this_machine
from benchmarks.servers import redis_binary
from cluster_layer.embedded import start_shards
from tests.support.command_line import CommandLine
from tests.support.loads import Load, Records, Shape, Verdict, verdict_of
from tests.support.stored import stored
from tests.support.zookeeper import ZooKeeperServer
from topology.ids import new_cluster_id
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.stores import open_store

SHARDS = 3
#: Room for all that may wait while a change holds somebody up: a full queue is not what is looked
#: for, and neither is a message that grew old.
CONFIG = {"prefix": "changes", "capacity": 200_000, "expiry": 600, "topology_cache": None}
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

#: What the operator does, in turn; {s3} is the URL of a fourth shard.
CHANGES: tuple[tuple[str, ...], ...] = (
    ("add", "s3={s3}"),
    ("weight", "s0", "2"),
    ("drain", "s1"),
    ("remove", "s1"),
    ("add", "s1={s1}"),
    ("weight", "s0", "1"),
    ("drain", "s2"),
    ("remove", "s2"),
    ("add", "s2={s2}"),
    ("remove", "s3"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, monotonic seconds."""

    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator has done, and the calm before and after it."""

    words: str
    slots: int
    before: Span
    during: Span
    after: Span


@dataclass(frozen=True, slots=True)
class Latencies:
    """Quantiles in milliseconds: of the calls, and from when a message was due to its receiver."""

    send: dict[str, float]
    end_to_end: dict[str, float]
    writes_per_s: float
    deliveries_per_s: float


def quantiles_ms(values_s: list[float]) -> dict[str, float]:
    """All NaN if there are no values."""
    ordered = sorted(values_s)
    return {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
        if ordered
        else float("nan")
        for name, share in QUANTILES.items()
    }


def latencies(records: Records, span: Span) -> Latencies:
    sends = records.send_latencies_s(span.begin_s, span.end_s)
    deliveries = records.delivery_latencies_s(span.begin_s, span.end_s)
    return Latencies(
        quantiles_ms(sends),
        quantiles_ms(deliveries),
        len(sends) / span.seconds,
        len(deliveries) / span.seconds,
    )


async def calm(seconds: float) -> Span:
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return Span(began, time.monotonic())


def slots_moved(before: Topology, after: Topology) -> int:
    pairs = zip(before.table.owners, after.table.owners, strict=True)
    return sum(one != other for one, other in pairs)


async def operated(
    store: str, urls: dict[str, str], wanted: Sequence[Sequence[str]], calm_s: float, step: int
) -> list[Change]:
    """Do one change after the other, with some calm around each."""
    changes, cli = [], CommandLine(store, within_s=600)
    await calm(calm_s)
    for number, words in enumerate(wanted, 1):
        before, filled = await calm(calm_s), [word.format(**urls) for word in words]
        former, began = stored(store), time.monotonic()
        await cli.run("shard", *filled, "--yes", "--step", str(step))
        during = Span(began, time.monotonic())
        after = await calm(calm_s)
        said = " ".join(word.partition("=")[0] for word in words)
        change = Change(said, slots_moved(former, stored(store)), before, during, after)
        print(f"  {number:2} {said:14} {during.seconds:6.2f} s, {change.slots:4} slots", flush=True)
        changes.append(change)
    return changes


def told(change: Change, records: Records, verdict: Verdict, until_s: float) -> dict[str, Any]:
    """All figures of one change; its messages are those from its begin to the next one's."""
    own = verdict.within(change.during.begin_s, until_s)
    return {
        "change": change.words,
        "seconds": change.during.seconds,
        "slots": change.slots,
        "lost": len(own.lost),
        "duplicated": len(own.duplicated),
        "out_of_order": len(own.disordered),
        "uncalled": len(own.uncalled),
        **{
            name: asdict(latencies(records, getattr(change, name)))
            for name in ("before", "during", "after")
        },
    }


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("change", "seconds", "slots", "lost", "twice", "disorder", "")
    for heading in ("writes/s", "send " + " / ".join(QUANTILES), "end to end"):
        table.add_column(heading, justify="right")
    for row in rows:
        for name in ("before", "during", "after"):
            first = name == "before"
            counts = (row[count] for count in ("slots", "lost", "duplicated", "out_of_order"))
            figures = (f"{row['seconds']:.2f}", *counts) if first else ("",) * 5
            measured = row[name]
            table.add_row(
                row["change"] if first else "",
                *map(str, figures),
                name,
                f"{measured['writes_per_s']:,.0f}",
                *(
                    " / ".join(f"{value:.1f}" for value in measured[what].values())
                    for what in ("send", "end_to_end")
                ),
                end_section=name == "after",
            )
    return table


def totals_of(verdict: Verdict) -> dict[str, Any]:
    return {
        "writes": verdict.writes,
        "deliveries": verdict.deliveries,
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicated),
        "out_of_order": len(verdict.disordered),
        "uncalled": len(verdict.uncalled),
        "unknown": dict(verdict.unknown),
        "refused": dict(verdict.refused),
    }


async def measured(
    processes: int, shape: Shape, wanted: Sequence[Sequence[str]], calm_s: float, step: int
) -> tuple[list[dict[str, Any]], Verdict]:
    with ExitStack() as opened:
        servers = opened.enter_context(start_shards(SHARDS + 1, binary=redis_binary()))
        zookeeper = opened.enter_context(ZooKeeperServer())
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="changes-")))
        urls = {f"s{index}": server.url for index, server in enumerate(servers)}
        store = f"zookeeper://{zookeeper.hosts}/changes"
        shards = [Shard(name, url) for name, url in urls.items()][:SHARDS]
        with closing(open_store(store)) as writing:
            writing.write(initial_topology(shards, cluster=new_cluster_id()), expected_epoch=None)
        config = {**CONFIG, "topology": store}
        async with Load(directory, [config] * processes, shape) as load:
            load.begin()
            await calm(calm_s)  # until everything is connected
            changes = await operated(store, urls, wanted, calm_s, step)
            records = await load.finish()
        verdict = verdict_of(load.traffic, records)
    ends = [change.during.begin_s for change in changes[1:]] + [float("inf")]
    rows = [told(change, records, verdict, end) for change, end in zip(changes, ends, strict=True)]
    return rows, verdict


@click.command()
@click.option("--writes", default=3000.0, show_default=True, help="Per second, of all processes.")
@click.option("--processes", default=4, show_default=True, type=click.IntRange(2))
@click.option("--calm", "calm_s", default=4.0, show_default=True, help="Seconds between changes.")
@click.option("--step", default=256, show_default=True, help="Slots per round.")
@click.option("--changes", "count", default=len(CHANGES), type=click.IntRange(1, len(CHANGES)))
@click.option("--output", type=click.Path(path_type=Path), help="A file for all figures, as JSON.")
def main(
    writes: float, processes: int, calm_s: float, step: int, count: int, output: Path | None
) -> None:
    """Change the topology under load; print what was lost (nothing) and the latencies."""
    shape = Shape(writes_per_s=writes)
    print(f"{writes:,.0f} writes/s from {processes} processes, {SHARDS} shards and a fourth")
    rows, verdict = asyncio.run(measured(processes, shape, CHANGES[:count], calm_s / 2, step))
    console = Console()
    if not console.is_terminal:  # in a file or a pipe no terminal says how wide it is
        console = Console(width=160)
    console.print(table_of(rows))
    load = os.getloadavg()[1]
    said = f"milliseconds, at a load average of {load:.1f}; in all: {verdict}"
    console.print(said, markup=False, highlight=False)
    if output is not None:
        machine = asdict(this_machine())
        figures = {"machine": machine, "totals": totals_of(verdict), "changes": rows}
        output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not verdict.flawless:
        for mishap in (*verdict.lost, *verdict.duplicated, *verdict.disordered)[:20]:
            console.print(str(mishap), markup=False)
        console.print("NOT flawless", style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
