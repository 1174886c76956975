"""What a row gets: its peer, its servers, and the means to load and to meter them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.model import Metric
from benchmarks.peers import PEERS, Layer, make_layer
from benchmarks.servers import Servers

Step = Callable[[int], Awaitable[object]]


@dataclass(slots=True)
class Meter:
    """What some operations took; filled in when their block ends."""

    operations: int = 0
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0

    @property
    def per_second(self) -> float:
        return self.operations / self.seconds

    def cpu_us(self, per: int = 1) -> dict[str, float]:
        """Processor time of client and server for each `per`-th part of an operation, in us."""
        count = self.operations * per / 1e6
        return {
            "client_cpu": self.client_cpu_s / count,
            "server_cpu": self.server_cpu_s / count,
        }


CPU_METRICS = (
    Metric("client_cpu", "client CPU", "us per message", higher_is_better=False),
    Metric("server_cpu", "server CPU", "us per message", higher_is_better=False),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One cell: a peer, its servers, and how long to measure."""

    peer: str
    servers: Servers
    seconds: float
    quick: bool

    def few(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    async def layer(self, *, confirm: bool = True) -> Layer:
        return await make_layer(self.peer, self.servers.addresses, confirm=confirm)

    async def settle(self, layer: object) -> None:
        await PEERS[self.peer].settle(layer)

    @asynccontextmanager
    async def meter(self) -> AsyncIterator[Meter]:
        """Take the time of what happens inside; the block sets `operations`."""
        meter = Meter()
        server_cpu_s = self.servers.cpu_s()
        cpu_s, begun = time.process_time(), time.perf_counter()
        yield meter
        meter.seconds = time.perf_counter() - begun
        meter.client_cpu_s = time.process_time() - cpu_s
        meter.server_cpu_s = self.servers.cpu_s() - server_cpu_s

    async def sustained(self, layer: object, step: Step, in_flight: int) -> Meter:
        """Repeat `step(worker)` with so many workers until the time is over, after a warm-up."""
        await self._batches(layer, step, in_flight, self.seconds / 5)
        async with self.meter() as meter:
            meter.operations = await self._batches(layer, step, in_flight, self.seconds)
        return meter

    async def _batches(self, layer: object, step: Step, in_flight: int, seconds: float) -> int:
        # In batches: a layer whose send never gives way to the loop would let the first worker
        # run alone until the end, and its writes wait for it.
        repeats = max(20, 1000 // in_flight) if not self.quick else 2
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            await asyncio.gather(*(_repeat(step, worker, repeats) for worker in range(in_flight)))
            await self.settle(layer)
            done += in_flight * repeats
        return done


async def _repeat(step: Step, worker: int, repeats: int) -> None:
    for _ in range(repeats):
        await step(worker)


def percentile(ordered: list[float], share: float) -> float:
    """The value that this share of an ordered list does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
