"""Members of a group, and what they receive."""

from __future__ import annotations

import asyncio

from benchmarks.peers import Layer

BATCH = 100  # joins at a time
DEADLINE_S = 60.0


async def join(layer: Layer, members: int, group: str) -> list[str]:
    """New members of a group; their channels."""
    channels = [await layer.new_channel() for _ in range(members)]
    for first in range(0, members, BATCH):
        batch = channels[first : first + BATCH]
        await asyncio.gather(*(layer.group_add(group, channel) for channel in batch))
    return channels


class Audience:
    """Members that receive for ever, and the counts of what they got."""

    def __init__(self, layer: Layer, channels: list[str]) -> None:
        self.delivered = 0
        self.members = len(channels)
        self._target = 0
        self._reached = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen(layer, channel)) for channel in channels]

    async def reach(self, delivered: int) -> None:
        """Return when so many messages have been received in all. TimeoutError."""
        self._target = delivered
        if self.delivered >= delivered:
            return
        self._reached.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    async def _listen(self, layer: Layer, channel: str) -> None:
        while True:
            await layer.receive(channel)
            self.delivered += 1
            if self.delivered >= self._target:
                self._reached.set()
