"""One message to all members of a group, sender and members in one process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.audience import Audience, join
from benchmarks.bench import CPU_METRICS, Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE
from benchmarks.rows.row import Row

GROUP = "room"
WINDOW = 4  # group messages that may be on their way to their last member
UNREAD = 500_000  # messages that may wait in one process
LEAST_SENDS, MOST_SENDS = 3, 20  # one at a time, for the time to the last member


def _unread(members: int, bars: dict[str, float], limit_ms: float | None) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer()
        channels = await join(layer, members, GROUP)

        async def once() -> None:
            await layer.group_send(GROUP, MESSAGE)
            await layer.receive(channels[-1])

        last_ms = await _median_ms(bench, once)
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while meter.operations < UNREAD / members and time.perf_counter() < end:
                await layer.group_send(GROUP, MESSAGE)
                meter.operations += 1
            await bench.settle(layer)
        return {"rate": meter.per_second, "last": last_ms, **meter.cpu_us()}

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

        async def once() -> None:
            target = audience.delivered + members
            await layer.group_send(GROUP, MESSAGE)
            await audience.reach(target)

        last_ms = await _median_ms(bench, once)
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
        return {"rate": meter.per_second, "last": last_ms, **meter.cpu_us()}

    last = Metric("last", "send to last member", "ms", higher_is_better=False)
    return Row(
        f"delivered/{members}",
        f"group_send to {members:,} local members, received",
        (Metric("rate", "deliveries", "1/s", bars=bars), last, *CPU_METRICS),
        LAYERS,
        measure,
    )


async def _median_ms(bench: Bench, once: Callable[[], Awaitable[None]]) -> float:
    """How long it takes, one after another: a few times, fewer if that takes long."""
    took_ms: list[float] = []
    end = time.perf_counter() + bench.seconds
    while len(took_ms) < LEAST_SENDS or (len(took_ms) < MOST_SENDS and time.perf_counter() < end):
        begun = time.perf_counter()
        await once()
        took_ms.append((time.perf_counter() - begun) * 1000)
    return median(took_ms)


ROWS = (
    _unread(10, {}, None),
    _unread(1_000, {"core": 12, "pubsub": 4}, None),
    _unread(10_000, {}, 10.0),
    _delivered(10, {}),
    _delivered(1_000, {"core": 18, "pubsub": 3, "nats": 1.5}),
    _delivered(10_000, {}),
)
