"""What metrics cost where messages pass: client CPU per send, without a hook and with each.

.venv/bin/python -m benchmarks.metrics_cost
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from cluster_layer.metrics.open_telemetry import OpenTelemetryMetrics
from cluster_layer.metrics.prometheus import PrometheusMetrics

ROUNDS = 7
SENDS = 6_000
AT_ONCE = 100


async def cpu_per_send_us(server: RedisServer, metrics: Any) -> float:
    """Microseconds of this process's CPU for each message to a normal channel."""
    layer = ClusterChannelLayer(
        hosts=[server.url], prefix=uuid.uuid4().hex, capacity=SENDS + 1, metrics=metrics
    )
    try:
        await layer.open()
        await layer.send("orders", {"type": "warm.up"})
        left = iter(range(SENDS))

        async def send_some() -> None:
            for number in left:
                await layer.send("orders", {"type": "a.message", "n": number})

        begun = time.process_time()
        await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
        return (time.process_time() - begun) / SENDS * 1e6
    finally:
        await layer.close()


def main() -> None:
    """Print medians of rounds that take turns, and ratios to no hook."""
    hooks = {
        "none": lambda: None,
        "Prometheus": lambda: PrometheusMetrics(CollectorRegistry()),
        "OpenTelemetry": lambda: OpenTelemetryMetrics(
            MeterProvider(metric_readers=[InMemoryMetricReader()])
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in hooks}
    with RedisServer() as server:
        for _ in range(ROUNDS):
            for name, make in hooks.items():
                found[name].append(asyncio.run(cpu_per_send_us(server, make())))
    base = statistics.median(found["none"])
    for name, values in found.items():
        median = statistics.median(values)
        print(f"{name:14} {median:6.1f} us per send   {median / base:4.2f} x")


if __name__ == "__main__":
    main()
