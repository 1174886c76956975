"""A little traffic of every kind, and the question whether all of it arrived."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster_layer import ClusterChannelLayer
from tests.support.layers import DEADLINE_S, numbered, open_layer, unique_prefix

LANES = 6  # of each kind
PAUSE_S = 0.004


@dataclass
class Lane:
    """One name that is written to by one task, and the channel where that is read."""

    kind: str
    name: str
    channel: str
    sent: int = 0
    received: list[int] = field(default_factory=list)

    def check(self) -> None:
        """All of it, once; in order unless the channel is a normal one."""
        arrived = sorted(self.received) if self.kind == "normal" else self.received
        lost = sorted(set(range(self.sent)).difference(arrived))
        twice = [number for number, count in Counter(arrived).items() if count > 1]
        assert arrived == list(range(self.sent)), (self.kind, self.name, lost[:9], twice[:9])


class Traffic:
    """Writes by one layer, reads by another."""

    def __init__(self, writer: ClusterChannelLayer, reader: ClusterChannelLayer) -> None:
        self.reader = reader
        self._writer = writer
        self._lanes: list[Lane] = []
        self._over = asyncio.Event()
        self._writing: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for number in range(LANES):
            direct = await self.reader.new_channel(f"direct{number}")
            member = await self.reader.new_channel(f"member{number}")
            await self.reader.group_add(f"group{number}", member)
            self._lanes += [
                Lane("direct", direct, direct),
                Lane("group", f"group{number}", member),
                Lane("normal", f"normal{number}", f"normal{number}"),
            ]
        self._reading = [asyncio.create_task(self._read(lane)) for lane in self._lanes]
        self._writing = [asyncio.create_task(self._write(lane)) for lane in self._lanes]

    async def check(self) -> int:
        """Stop writing; everything must arrive. How many messages that were."""
        self._over.set()
        await asyncio.gather(*self._writing)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*self._reading)
        for lane in self._lanes:
            lane.check()
        return sum(lane.sent for lane in self._lanes)

    def cancel(self) -> None:
        for task in (*self._writing, *self._reading):
            task.cancel()

    async def _write(self, lane: Lane) -> None:
        send = self._writer.group_send if lane.kind == "group" else self._writer.send
        while not self._over.is_set():
            await send(lane.name, numbered(lane.sent))
            lane.sent += 1
            await asyncio.sleep(PAUSE_S)
        await send(lane.name, numbered(-1))

    async def _read(self, lane: Lane) -> None:
        """Up to the end; a normal channel is read until all that was sent is there."""
        ended = False
        while not ended or (lane.kind == "normal" and len(lane.received) < lane.sent):
            number = (await self.reader.receive(lane.channel))["n"]
            if number < 0:
                ended = True
            else:
                lane.received.append(number)


@asynccontextmanager
async def traffic_on(store: str) -> AsyncIterator[Traffic]:
    """From here to the end of the block."""
    config: dict[str, Any] = {"topology": store, "prefix": unique_prefix(), "capacity": 10_000}
    async with open_layer(**config) as writer, open_layer(**config) as reader:
        await writer.open()
        await reader.open()
        traffic = Traffic(writer, reader)
        await traffic.start()
        try:
            yield traffic
        finally:
            traffic.cancel()
