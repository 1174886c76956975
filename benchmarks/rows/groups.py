"""One message to all members of a group, sender and members in one process."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.audience import Audience, join
from benchmarks.bench import CPU_METRICS, MESSAGE, Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, Layer
from benchmarks.rows.row import Row

GROUP = "room"
WINDOW = 4  # group messages that may be on their way to their last member
UNREAD = 500_000  # messages that may wait in one process
LATENCY_SENDS = 20


def _unread(members: int, bars: dict[str, float], limit_ms: float | None) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer()
        channels = await join(layer, members, GROUP)
        latencies_ms = []
        for _ in range(bench.few(LATENCY_SENDS, 2)):
            begun = time.perf_counter()
            await layer.group_send(GROUP, MESSAGE)
            await layer.receive(channels[-1])
            latencies_ms.append((time.perf_counter() - begun) * 1000)
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while meter.operations < UNREAD / members and time.perf_counter() < end:
                await layer.group_send(GROUP, MESSAGE)
                meter.operations += 1
            await bench.settle(layer)
        return {"rate": meter.per_second, "last": median(latencies_ms), **meter.cpu_us()}

    last = Metric("last", "send to last member", "ms", higher_is_better=False, limit=limit_ms)
    return Row(
        f"group/{members}",
        f"group_send to {members:,} local members, unread",
        (Metric("rate", "sends", "1/s", bars=bars), last, *CPU_METRICS),
        LAYERS,
        measure,
    )


def _delivered(members: int, bars: dict[str, float]) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer()
        audience = Audience(layer, await join(layer, members, GROUP))
        await layer.group_send(GROUP, MESSAGE)
        await audience.reach(members)
        latencies_ms = [
            await _latency_ms(layer, audience) for _ in range(bench.few(LATENCY_SENDS, 2))
        ]
        begun, sent = audience.delivered, 0
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while time.perf_counter() < end:
                await layer.group_send(GROUP, MESSAGE)
                sent += 1
                await audience.reach(begun + (sent - WINDOW) * members)
            await audience.reach(begun + sent * members)
            meter.operations = sent * members
        assert audience.delivered == begun + sent * members
        return {"rate": meter.per_second, "last": median(latencies_ms), **meter.cpu_us()}

    last = Metric("last", "send to last member", "ms", higher_is_better=False)
    return Row(
        f"delivered/{members}",
        f"group_send to {members:,} local members, received",
        (Metric("rate", "deliveries", "1/s", bars=bars), last, *CPU_METRICS),
        LAYERS,
        measure,
    )


async def _latency_ms(layer: Layer, audience: Audience) -> float:
    begun = time.perf_counter()
    target = audience.delivered + audience.members
    await layer.group_send(GROUP, MESSAGE)
    await audience.reach(target)
    return (time.perf_counter() - begun) * 1000


ROWS = (
    _unread(10, {}, None),
    _unread(1_000, {"core": 12, "pubsub": 4}, None),
    _unread(10_000, {}, 10.0),
    _delivered(10, {}),
    _delivered(1_000, {"core": 18, "pubsub": 3, "nats": 1.5}),
    _delivered(10_000, {}),
)
