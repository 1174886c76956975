"""How long messages take at half of a layer's own capacity, on a schedule that waits for nobody.

A load that waits for answers slows down with the layer and hides what its users would see
(coordinated omission); here the clock of a message starts when it is due.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench, percentile
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE, Layer
from benchmarks.rows.row import Row

CHANNELS = 50
SHARE = 0.5
TICK_S = 0.001
DEADLINE_S = 30.0


async def _measure(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    channels = [await layer.new_channel() for _ in range(CHANNELS)]

    async def step(worker: int) -> None:
        await layer.send(channels[worker], MESSAGE)
        await layer.receive(channels[worker])

    capacity = await bench.sustained(layer, step, CHANNELS)
    rate = capacity.per_second * SHARE
    took_s = sorted(await _on_schedule(layer, channels, rate, bench.seconds * 2))
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {
        **{key: percentile(took_s, share) * 1000 for key, share in shares.items()},
        "offered": rate,
    }


async def _on_schedule(
    layer: Layer, channels: list[str], rate: float, seconds: float
) -> list[float]:
    """Seconds from due to received, of `rate` messages a second."""
    total = max(1, int(rate * seconds))
    took_s: list[float] = []
    complete = asyncio.Event()

    async def listen(channel: str) -> None:
        while True:
            message = await layer.receive(channel)
            took_s.append(time.perf_counter() - message["due"])
            if len(took_s) == total:
                complete.set()

    listeners = [asyncio.create_task(listen(channel)) for channel in channels]
    begun, sends = time.perf_counter(), set()
    for number in range(total):
        due = begun + number / rate
        if due > time.perf_counter():
            await asyncio.sleep(max(due - time.perf_counter(), TICK_S))
        message = {**MESSAGE, "due": due}
        send = asyncio.create_task(layer.send(channels[number % CHANNELS], message))
        sends.add(send)
        send.add_done_callback(sends.discard)
    async with asyncio.timeout(DEADLINE_S):
        await complete.wait()
    for listener in listeners:
        listener.cancel()
    return took_s


def _metric(key: str, title: str) -> Metric:
    return Metric(key, title, "ms", higher_is_better=False)


ROWS = (
    Row(
        "latency/50",
        "due to received, at 50 % of the layer's own capacity",
        (
            _metric("p50", "median"),
            _metric("p99", "99 %"),
            _metric("p999", "99.9 %"),
            Metric("offered", "messages offered", "1/s"),
        ),
        LAYERS,
        _measure,
    ),
)
