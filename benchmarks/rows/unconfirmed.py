"""Sends that do not wait for the shard's answer, beside NATS, whose sends never do."""

from __future__ import annotations

import time

from benchmarks.audience import join
from benchmarks.bench import CPU_METRICS, Bench
from benchmarks.model import OURS, Metric
from benchmarks.peers import MESSAGE
from benchmarks.rows.row import Row
from benchmarks.rows.sending import CHANNEL

MEMBERS = 1_000
GROUP = "room"
BATCH = 50  # group messages between two looks at the last member
UNREAD = 500_000  # messages that may wait in one process
PEERS = (OURS, "nats")
RATE = Metric("rate", "sends", "1/s", bars={"nats": 1.0})


def _sending(in_flight: int) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer(confirm=False)
        meter = await bench.sustained(
            layer, lambda _worker: layer.send(CHANNEL, MESSAGE), in_flight
        )
        return {"rate": meter.per_second, **meter.cpu_us()}

    title = f"{in_flight} at a time" if in_flight > 1 else "one at a time"
    return Row(
        f"unconfirmed/{in_flight}",
        f"unconfirmed sends, {title}",
        (RATE, *CPU_METRICS),
        PEERS,
        measure,
    )


async def _group(bench: Bench) -> dict[str, float]:
    layer = await bench.layer(confirm=False)
    channels = await join(layer, bench.few(MEMBERS, 10), GROUP)
    end = time.perf_counter() + bench.seconds
    async with bench.meter() as meter:
        while meter.operations < UNREAD / MEMBERS and time.perf_counter() < end:
            for _ in range(BATCH):
                await layer.group_send(GROUP, MESSAGE)
            await bench.settle(layer)
            for _ in range(BATCH):
                await layer.receive(channels[-1])
            meter.operations += BATCH
    return {"rate": meter.per_second, **meter.cpu_us()}


ROWS = (
    _sending(1),
    _sending(100),
    Row(
        f"unconfirmed/group-{MEMBERS}",
        f"unconfirmed group_send to {MEMBERS:,} members, until the last has it",
        (RATE, *CPU_METRICS),
        PEERS,
        _group,
    ),
)
