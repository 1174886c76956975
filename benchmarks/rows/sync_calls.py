"""Sends from code without an event loop, as in a Django view, and what they open."""

from __future__ import annotations

import asyncio
import time

from asgiref.sync import async_to_sync

from benchmarks.bench import Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE, PEERS, Sender
from benchmarks.rows.row import Row
from benchmarks.rows.sending import CHANNEL


def _send_for(layer: Sender, seconds: float) -> tuple[int, float]:
    """In a thread without a loop: how many sends, in how many seconds."""
    send = async_to_sync(layer.send)
    sent, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        send(CHANNEL, MESSAGE)
        sent += 1
    return sent, elapsed


async def _measure(bench: Bench) -> dict[str, float]:
    # Not opened on this loop, which stands for no loop of the site's.
    layer: Sender = PEERS[bench.peer].make(bench.servers.addresses)
    loop = asyncio.get_running_loop()
    before = bench.servers.connections()
    await loop.run_in_executor(None, _send_for, layer, bench.seconds / 5)
    sent, seconds = await loop.run_in_executor(None, _send_for, layer, bench.seconds)
    opened = bench.servers.connections() - before
    return {"rate": sent / seconds, "connections": opened}


ROWS = (
    Row(
        "sync/1",
        "sends through async_to_sync",
        (
            Metric("rate", "sends", "1/s", bars={"core": 5, "pubsub": 4, "nats": 2}),
            Metric("connections", "connections opened", "", higher_is_better=False),
        ),
        (*LAYERS, "empty"),
        _measure,
    ),
)
