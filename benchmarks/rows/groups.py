"""One message to all members of a group, sender and members in one process."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.bench import CPU_METRICS, MESSAGE, Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, Layer
from benchmarks.rows.row import Row

GROUP = "room"
BATCH = 100  # joins at a time
WINDOW = 4  # group messages that may be on their way to their last member
UNREAD = 500_000  # messages that may wait in one process
LATENCY_SENDS = 20
DEADLINE_S = 60.0


async def join(layer: Layer, members: int, group: str = GROUP) -> list[str]:
    """New members of a group; their channels."""
    channels = [await layer.new_channel() for _ in range(members)]
    for first in range(0, members, BATCH):
        batch = channels[first : first + BATCH]
        await asyncio.gather(*(layer.group_add(group, channel) for channel in batch))
    return channels


class Audience:
    """Members that receive for ever, and the counts of what they got."""

    def __init__(self, layer: Layer, channels: list[str]) -> None:
        self.delivered = 0
        self.members = len(channels)
        self._target = 0
        self._reached = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen(layer, channel)) for channel in channels]

    async def reach(self, delivered: int) -> None:
        """Return when so many messages have been received in all. TimeoutError."""
        self._target = delivered
        if self.delivered >= delivered:
            return
        self._reached.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    async def _listen(self, layer: Layer, channel: str) -> None:
        while True:
            await layer.receive(channel)
            self.delivered += 1
            if self.delivered >= self._target:
                self._reached.set()


def _unread(members: int, bars: dict[str, float]) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer()
        channels = await join(layer, members)
        await layer.group_send(GROUP, MESSAGE)
        await layer.receive(channels[0])
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while meter.operations < UNREAD / members and time.perf_counter() < end:
                await layer.group_send(GROUP, MESSAGE)
                meter.operations += 1
            await bench.settle(layer)
        return {"rate": meter.per_second, **meter.cpu_us()}

    return Row(
        f"group/{members}",
        f"group_send to {members:,} local members, unread",
        (Metric("rate", "sends", "1/s", bars=bars), *CPU_METRICS),
        LAYERS,
        measure,
    )


def _delivered(members: int, bars: dict[str, float], limit_ms: float | None) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        layer = await bench.layer()
        audience = Audience(layer, await join(layer, members))
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

    last = Metric("last", "send to last member", "ms", higher_is_better=False, limit=limit_ms)
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
    _unread(10, {}),
    _unread(1_000, {"core": 12, "pubsub": 4}),
    _unread(10_000, {}),
    _delivered(10, {}, None),
    _delivered(1_000, {"core": 18, "pubsub": 3, "nats": 1.5}, None),
    _delivered(10_000, {}, 10.0),
)
