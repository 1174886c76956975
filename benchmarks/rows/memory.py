"""Memory of what is only there: a channel whose receiver waits, a membership, a group."""

from __future__ import annotations

import asyncio
import gc
import time

import psutil

from benchmarks.audience import Audience
from benchmarks.bench import Bench
from benchmarks.model import OURS, Metric
from benchmarks.peers import LAYERS, Layer
from benchmarks.rows.row import Row

COUNT = 5_000
MANY_CHANNELS, MANY_GROUPS, GROUPS_EACH = 10_000, 10_000, 10
IN_FLIGHT = 100
SETTLE_S = 0.3


class _Growth:
    """Client and server memory, each time since the last look."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._client, self._server = self._now()

    def _now(self) -> tuple[int, int]:
        gc.collect()
        return int(psutil.Process().memory_info().rss), self._bench.servers.memory_bytes()

    async def per(self, name: str, count: int) -> dict[str, float]:
        """Bytes for each of `count` things that have been made."""
        await asyncio.sleep(SETTLE_S)
        before, self._client, self._server = (self._client, self._server), *self._now()
        return {
            f"{name}_client": max(0, self._client - before[0]) / count,
            f"{name}_server": max(0, self._server - before[1]) / count,
        }


async def join_all(layer: Layer, places: list[tuple[str, str]]) -> None:
    """Group and channel by group and channel, some at a time."""
    for first in range(0, len(places), IN_FLIGHT):
        batch = places[first : first + IN_FLIGHT]
        await asyncio.gather(*(layer.group_add(group, channel) for group, channel in batch))


async def _measure(bench: Bench) -> dict[str, float]:
    layer, count = await bench.layer(), bench.few(COUNT, 50)
    warm = await layer.new_channel()
    audience = Audience(layer, [warm])
    await join_all(layer, [("warm", warm)])
    growth = _Growth(bench)
    channels = [await layer.new_channel() for _ in range(count)]
    others = Audience(layer, channels)
    figures = await growth.per("channel", count)
    await join_all(layer, [("one", channel) for channel in channels])
    figures |= await growth.per("member", count)
    await join_all(layer, [(f"group-{number}", warm) for number in range(count)])
    figures |= await growth.per("group", count)
    assert audience.members + others.members == count + 1
    return figures


async def _many(bench: Bench) -> dict[str, float]:
    layer = await bench.layer()
    channels = [await layer.new_channel() for _ in range(bench.few(MANY_CHANNELS, 20))]
    groups = bench.few(MANY_GROUPS, 20)
    before = psutil.Process().memory_info().rss
    audience = Audience(layer, channels)
    begun = time.perf_counter()
    await join_all(
        layer,
        [
            (f"group-{(number * GROUPS_EACH + each) % groups}", channel)
            for number, channel in enumerate(channels)
            for each in range(GROUPS_EACH)
        ],
    )
    seconds = time.perf_counter() - begun
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    assert audience.members == len(channels)
    return {"client": grown / 2**20, "seconds": seconds}


def _metrics(name: str, title: str) -> tuple[Metric, Metric]:
    return (
        Metric(f"{name}_client", f"{title}, client", "bytes", higher_is_better=False),
        Metric(f"{name}_server", f"{title}, server", "bytes", higher_is_better=False),
    )


ROWS = (
    Row(
        "memory/idle",
        "memory of what is idle",
        (
            *_metrics("channel", "channel with a waiting receiver"),
            *_metrics("member", "member of a group"),
            *_metrics("group", "group with one member"),
        ),
        LAYERS,
        _measure,
    ),
    Row(
        "memory/many",
        f"{MANY_CHANNELS * GROUPS_EACH:,} members in {MANY_GROUPS:,} groups, one process",
        (
            Metric("client", "memory grown", "MiB", higher_is_better=False),
            Metric("seconds", "time to join", "s", higher_is_better=False),
        ),
        (OURS,),
        _many,
    ),
)
