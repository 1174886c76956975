"""Sends from code without an event loop, as in a Django view, and what they open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from asgiref.sync import async_to_sync

from benchmarks.bench import Bench
from benchmarks.model import OURS, Metric
from benchmarks.peers import CAPACITY, LAYERS, MESSAGE, PEERS, Message
from benchmarks.rows.row import Row
from benchmarks.rows.sending import CHANNEL
from cluster_layer.sync import SyncChannelLayer

Send = Callable[[str, Message], object]


def _send_for(send: Send, seconds: float) -> tuple[int, float]:
    """In a thread without a loop: how many sends, in how many seconds."""
    sent, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        send(CHANNEL, MESSAGE)
        sent += 1
    return sent, elapsed


def _through_async_to_sync(bench: Bench) -> Send:
    # Not opened on this loop, which stands for no loop of the site's.
    send: Send = async_to_sync(PEERS[bench.peer].make(bench.servers.addresses).send)
    return send


def _without_asyncio(bench: Bench) -> Send:
    if bench.peer != OURS:
        return _through_async_to_sync(bench)  # they have no other way
    return SyncChannelLayer(hosts=list(bench.servers.addresses.redis), capacity=CAPACITY).send


def _row(key: str, title: str, make: Callable[[Bench], Send], bars: dict[str, float]) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        send = make(bench)
        loop = asyncio.get_running_loop()
        before = bench.servers.connections()
        await loop.run_in_executor(None, _send_for, send, bench.seconds / 5)
        cpu_s = time.process_time()
        sent, seconds = await loop.run_in_executor(None, _send_for, send, bench.seconds)
        cpu_us = (time.process_time() - cpu_s) / sent * 1e6
        opened = bench.servers.connections() - before
        return {"rate": sent / seconds, "client_cpu": cpu_us, "connections": opened}

    return Row(
        key,
        title,
        (
            Metric("rate", "sends", "1/s", bars=bars),
            Metric("client_cpu", "client CPU", "us per message", higher_is_better=False),
            Metric("connections", "connections opened", "", higher_is_better=False),
        ),
        (*LAYERS, "empty"),
        measure,
    )


ROWS = (
    _row(
        "sync/1",
        "sends through async_to_sync",
        _through_async_to_sync,
        {"core": 5, "pubsub": 4, "nats": 2},
    ),
    _row(
        "sync/own",
        "sends through cluster_layer.sync, the others through async_to_sync",
        _without_asyncio,
        {"core": 20, "pubsub": 15, "nats": 8},
    ),
)
