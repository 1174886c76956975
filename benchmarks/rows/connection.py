"""The connection class alone."""

from __future__ import annotations

from benchmarks.bench import CPU_METRICS, Bench
from benchmarks.model import OURS, Metric
from benchmarks.peers import Bare
from benchmarks.rows.row import Row

IN_FLIGHT = 1000


async def _measure(bench: Bench) -> dict[str, float]:
    bare = Bare(bench.servers.addresses)
    await bare.open()
    connection = bare.connection
    meter = await bench.sustained(
        bare, lambda _worker: connection.execute(("SET", "key", "value")), IN_FLIGHT
    )
    return {"rate": meter.per_second, **meter.cpu_us()}


ROWS = (
    Row(
        f"connection/{IN_FLIGHT}",
        f"SET over one connection, {IN_FLIGHT} in flight",
        (Metric("rate", "commands", "1/s", limit=100_000), *CPU_METRICS),
        (OURS,),
        _measure,
    ),
)
