"""How fast members come and go."""

from __future__ import annotations

import asyncio

from benchmarks.bench import Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS
from benchmarks.rows.row import Row

IN_FLIGHT = 50
MEMBERS = 10  # of a group; the first makes the process subscribe, the last makes it leave


async def _measure(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    channels = [await layer.new_channel() for _ in range(IN_FLIGHT)]
    joined: list[tuple[str, str]] = []

    async def join(worker: int) -> None:
        place = (f"room-{len(joined) // MEMBERS}", channels[worker])
        joined.append(place)
        await layer.group_add(*place)

    joins = await bench.sustained(layer, join, IN_FLIGHT)
    async with bench.meter() as leaves:
        for first in range(0, len(joined), IN_FLIGHT):
            batch = joined[first : first + IN_FLIGHT]
            await asyncio.gather(*(layer.group_discard(*place) for place in batch))
        await bench.settle(layer)
        leaves.operations = len(joined)
    return {"joins": joins.per_second, "leaves": leaves.per_second}


ROWS = (
    Row(
        f"join/{IN_FLIGHT}",
        f"joins and leaves, {IN_FLIGHT} in flight, {MEMBERS} members a group",
        (Metric("joins", "joins", "1/s"), Metric("leaves", "leaves", "1/s")),
        LAYERS,
        _measure,
    ),
)
