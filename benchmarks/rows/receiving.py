"""From send to receive, in one process: 50 channels, each with one message under way."""

from __future__ import annotations

from benchmarks.bench import CPU_METRICS, Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE
from benchmarks.rows.row import Row

IN_FLIGHT = 50


async def _measure(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    channels = [await layer.new_channel() for _ in range(IN_FLIGHT)]

    async def step(worker: int) -> None:
        await layer.send(channels[worker], MESSAGE)
        message = await layer.receive(channels[worker])
        assert message["room"] == MESSAGE["room"]

    meter = await bench.sustained(layer, step, IN_FLIGHT)
    return {"rate": meter.per_second, **meter.cpu_us()}


ROWS = (
    Row(
        f"receive/{IN_FLIGHT}",
        f"send to receive, {IN_FLIGHT} in flight",
        (
            Metric("rate", "messages", "1/s", bars={"core": 30, "pubsub": 7, "nats": 1.0}),
            *CPU_METRICS,
        ),
        LAYERS,
        _measure,
    ),
)
