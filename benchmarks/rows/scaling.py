"""More shards, more processes: what a message costs a shard must stay what it is."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.helpers import start_helpers
from benchmarks.model import OURS, Metric
from benchmarks.rows.row import Row

STEPS = (1, 2, 4, 8)
FIXED = 2  # of the other kind


def _scaling(name: str, title: str, shards: int, processes: int) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        addresses = bench.servers.addresses
        async with start_helpers(processes, "traffic", bench.peer, addresses) as helpers:
            warm = {"seconds": bench.seconds / 5}
            await asyncio.gather(*(helper.ask(warm) for helper in helpers))
            cpu_s, begun = bench.servers.cpu_s(), time.perf_counter()
            requests = [helper.ask({"seconds": bench.seconds}) for helper in helpers]
            count = sum(answer["count"] for answer in await asyncio.gather(*requests))
            seconds = time.perf_counter() - begun
            used_s = bench.servers.cpu_s() - cpu_s
        return {"server_cpu": used_s / count * 1e6, "rate": count / seconds}

    cpu = Metric("server_cpu", "shard CPU", "us per message", higher_is_better=False)
    return Row(name, title, (cpu, Metric("rate", "messages", "1/s")), (OURS,), measure, shards)


ROWS = (
    *(
        _scaling(f"shards/{n}", f"shards: {n}, processes: {FIXED}", shards=n, processes=FIXED)
        for n in STEPS
    ),
    *(
        _scaling(f"workers/{n}", f"processes: {n}, shards: {FIXED}", shards=FIXED, processes=n)
        for n in STEPS
    ),
)
