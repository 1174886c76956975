"""A shard dies and comes back blank: how long its members need, and who else feels it."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from benchmarks.audience import Audience
from benchmarks.bench import Bench, percentile
from benchmarks.model import OURS, Metric
from benchmarks.peers import MESSAGE, Layer
from benchmarks.rows.memory import join_all
from benchmarks.rows.row import Row
from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer

CHANNELS, GROUPS, GROUPS_EACH = 5_000, 5_000, 10
BYSTANDER_EVERY_S = 0.005
POLL_S = 0.01
DEADLINE_S = 60.0


async def _measure(bench: Bench) -> dict[str, float]:
    layer = cast(ClusterChannelLayer, await bench.layer())
    victim, survivor = bench.servers.shards
    groups = await _groups_on(layer, victim, bench.few(GROUPS, 20))
    bystander = (await _groups_on(layer, survivor, 1))[0]
    channels = [await layer.new_channel() for _ in range(bench.few(CHANNELS, 20))]
    audience = Audience(layer, channels)
    places = [
        (groups[(number * GROUPS_EACH + each) % len(groups)], channel)
        for number, channel in enumerate(channels)
        for each in range(GROUPS_EACH)
    ]
    await join_all(layer, places)
    others = _Bystanders(layer, bystander, await layer.new_channel())
    await others.begin()
    await asyncio.sleep(bench.seconds)
    before_ms = others.p99_ms()
    victim.kill()
    begun = time.perf_counter()
    await asyncio.to_thread(victim.start)
    started_s = time.perf_counter() - begun
    await _subscribed(victim, bench, len(groups))
    healed_s = time.perf_counter() - begun
    during_ms = others.p99_ms()
    # Every member is back: one message to each group reaches them all.
    already = audience.delivered
    for group in groups:
        await layer.group_send(group, MESSAGE)
    await audience.reach(already + len(places))
    return {"seconds": healed_s, "start": started_s, "during": during_ms, "before": before_ms}


async def _groups_on(layer: ClusterChannelLayer, server: RedisServer, count: int) -> list[str]:
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        if (await layer.locate(f"room-{number}")).startswith(f"127.0.0.1:{server.port}"):
            found.append(f"room-{number}")
    return found


async def _subscribed(server: RedisServer, bench: Bench, groups: int) -> None:
    client = bench.servers.client(bench.servers.shards.index(server))
    client.connection_pool.disconnect()  # of its last life
    async with asyncio.timeout(DEADLINE_S):
        while True:
            stats = await asyncio.to_thread(client.info, "stats")
            if stats["pubsub_channels"] >= groups:
                return
            await asyncio.sleep(POLL_S)


class _Bystanders:
    """Steady messages to a group on the shard that lives, and how long they take."""

    def __init__(self, layer: Layer, group: str, channel: str) -> None:
        self._layer = layer
        self._group = group
        self._channel = channel
        self._took_ms: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        await self._layer.group_add(self._group, self._channel)
        self._tasks = [asyncio.create_task(work()) for work in (self._listen, self._talk)]

    def p99_ms(self) -> float:
        """Of the messages since the last question."""
        ordered, self._took_ms = sorted(self._took_ms), []
        return percentile(ordered, 0.99)

    async def _listen(self) -> None:
        while True:
            message = await self._layer.receive(self._channel)
            self._took_ms.append((time.perf_counter() - message["due"]) * 1000)

    async def _talk(self) -> None:
        due = time.perf_counter()
        while True:
            due += BYSTANDER_EVERY_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self._layer.group_send(self._group, {**MESSAGE, "due": due})


ROWS = (
    Row(
        "returning/50000",
        f"{CHANNELS * GROUPS_EACH:,} members of {GROUPS:,} groups come back to a blank shard",
        (
            Metric("seconds", "kill to all back", "s", higher_is_better=False),
            Metric("start", "of it until the shard answers", "s", higher_is_better=False),
            Metric("during", "99 % of everyone else meanwhile", "ms", higher_is_better=False),
            Metric("before", "99 % of everyone else before", "ms", higher_is_better=False),
        ),
        (OURS,),
        _measure,
        shards=2,
    ),
)
