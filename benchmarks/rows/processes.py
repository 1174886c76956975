"""Messages between processes: one sender here, four receivers elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.helpers import Helper, start_helpers
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE
from benchmarks.rows.row import Row

PROCESSES = 4
MEMBERS = 250  # in each process
GROUP = "room"
BURST = 20  # group messages between two looks at who got them
CHANNEL = "jobs"
IN_FLIGHT = 50
QUIET_S = 0.5
DEADLINE_S = 60.0


async def _group(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    options = {"group": GROUP, "members": MEMBERS}
    addresses = bench.servers.addresses
    async with start_helpers(PROCESSES, "members", bench.peer, addresses, **options) as helpers:
        sent = 0
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while time.perf_counter() < end:
                for _ in range(BURST):
                    await layer.group_send(GROUP, MESSAGE)
                await bench.settle(layer)
                sent += BURST
                await asyncio.gather(*(h.ask({"reach": sent * MEMBERS}) for h in helpers))
            meter.operations = sent * MEMBERS * PROCESSES
        server_cpu = meter.server_cpu_s / sent * 1e6
    return {"rate": meter.per_second, "server_cpu": server_cpu}


async def _normal(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    addresses = bench.servers.addresses
    async with start_helpers(
        PROCESSES, "reader", bench.peer, addresses, channel=CHANNEL
    ) as helpers:
        if bench.peer == "nats":  # a message before the first reader has subscribed is lost
            await asyncio.sleep(QUIET_S)
        end = time.perf_counter() + bench.seconds
        async with bench.meter() as meter:
            while time.perf_counter() < end:
                await asyncio.gather(*(layer.send(CHANNEL, MESSAGE) for _ in range(IN_FLIGHT)))
                await bench.settle(layer)
                meter.operations += IN_FLIGHT
                # As much as can be on its way, lest a slow reader's queue is what is measured.
                if meter.operations % (10 * IN_FLIGHT) == 0:
                    await _received(helpers, meter.operations)
            await _received(helpers, meter.operations)
        await asyncio.sleep(QUIET_S)  # for what comes twice
        received = await _count(helpers)
    return {"rate": meter.per_second, "twice": float(received - meter.operations)}


async def _received(helpers: Sequence[Helper], count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await _count(helpers) < count:
            await asyncio.sleep(0.001)


async def _count(helpers: Sequence[Helper]) -> int:
    answers = await asyncio.gather(*(helper.ask({"count": True}) for helper in helpers))
    return sum(answer["count"] for answer in answers)


_CPU = Metric("server_cpu", "server CPU", "us per group_send", higher_is_better=False)
_TWICE = Metric("twice", "delivered again", "messages", higher_is_better=False, limit=0)

ROWS = (
    Row(
        f"processes/group-{PROCESSES}",
        f"group_send to {PROCESSES} processes of {MEMBERS} members",
        (Metric("rate", "deliveries", "1/s"), _CPU),
        LAYERS,
        _group,
    ),
    Row(
        f"processes/normal-{PROCESSES}",
        f"normal channel with readers in {PROCESSES} processes",
        (Metric("rate", "messages", "1/s"), _TWICE),
        # pubsub gives such a message to every reader: it has no queues.
        tuple(peer for peer in LAYERS if peer != "pubsub"),
        _normal,
    ),
)
