"""What each verb asks of its shard, counted by the shard itself (MONITOR).

INFO commandstats cannot tell what a client sent from what a script called; MONITOR can.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis import Redis

from benchmarks.audience import join
from benchmarks.bench import Bench
from benchmarks.model import Metric
from benchmarks.peers import MESSAGE
from benchmarks.rows.row import Row

CALLS = 200
MEMBERS = 1_000
GROUP = "room"
OTHER_GROUP = "corridor"
END = "the end of a count"
# What belongs to no call: heartbeats, timeouts of blocking reads, other questions of this bench.
BESIDE = frozenset({"INFO", "PING", "CLIENT", "TIME", "HELLO", "SELECT"})


@dataclass(slots=True)
class Counted:
    """Commands that clients sent, and those that scripts called besides."""

    sent: int = 0
    in_scripts: int = 0


@asynccontextmanager
async def counting(client: Redis) -> AsyncIterator[Counted]:
    """Count what the shard is asked while the block runs; complete once the block has ended."""
    counted, watching = Counted(), threading.Event()
    watcher = asyncio.get_running_loop().run_in_executor(None, _watch, client, counted, watching)
    await asyncio.to_thread(watching.wait)
    try:
        yield counted
    finally:
        client.echo(END)
        await watcher


def _watch(client: Redis, counted: Counted, watching: threading.Event) -> None:
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        watching.set()
        while END not in (command := monitor.next_command())["command"]:
            if command["client_type"] == "lua":
                counted.in_scripts += 1
            elif command["command"].split(maxsplit=1)[0].upper() not in BESIDE:
                counted.sent += 1


async def _measure(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    channel = await layer.new_channel()
    members = await join(layer, bench.few(MEMBERS, 10), GROUP)

    async def send_and_receive() -> None:
        await layer.send(channel, MESSAGE)
        await layer.receive(channel)

    async def join_and_leave() -> None:
        await layer.group_add(OTHER_GROUP, members[0])
        await layer.group_discard(OTHER_GROUP, members[0])

    figures = {}
    verbs: dict[str, Callable[[], Awaitable[None]]] = {
        "send": send_and_receive,
        "group": lambda: layer.group_send(GROUP, MESSAGE),
        "join": join_and_leave,
    }
    calls = bench.few(CALLS, 3)
    for name, verb in verbs.items():
        await verb()  # what is opened, subscribed or loaded once does not count
        async with counting(bench.servers.client()) as counted:
            for _ in range(calls):
                await verb()
        figures[f"{name}_sent"] = counted.sent / calls
        figures[f"{name}_inside"] = counted.in_scripts / calls
    return figures


def _metrics(name: str, title: str, limit: float | None = None) -> tuple[Metric, Metric]:
    sent = Metric(f"{name}_sent", title, "commands", higher_is_better=False, limit=limit)
    inside = Metric(f"{name}_inside", "called by scripts", "commands", higher_is_better=False)
    return sent, inside


ROWS = (
    Row(
        "commands/verbs",
        f"shard commands of a verb, group of {MEMBERS:,} members",
        (
            *_metrics("send", "send and receive"),
            *_metrics("group", "group_send", limit=2),
            *_metrics("join", "join and leave"),
        ),
        ("cluster", "core", "pubsub"),
        _measure,
    ),
)
