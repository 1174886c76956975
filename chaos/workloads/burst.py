"""Bursts: hundreds of tasks write to one group and one channel in the same step of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from chaos.workloads.actor import Actor

CONFIG = {"capacity": 20_000}
GROUPS = tuple(f"burst-{number}" for number in range(4))
READERS = 3
PUBLISHERS = 160  # more calls than a connection gathers before it writes
SENDERS = 220  # more messages than leave in one call
PAUSE_S = (0.2, 0.8)


class Moments:
    """When everybody writes, and to which group and which channel."""

    def __init__(self) -> None:
        self.group = ""
        self.channel = ""
        self._next = asyncio.Event()

    async def next(self) -> None:
        """Return at the next moment; who is busy then misses it."""
        await self._next.wait()

    def come(self, group: str, channel: str) -> None:
        self.group, self.channel = group, channel
        now, self._next = self._next, asyncio.Event()
        now.set()


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = [await actor.open_channel() for _ in range(READERS)]
    for index, group in enumerate(GROUPS):
        await actor.join("setup", group, channels[index % READERS])
    moments = Moments()

    def publish(task: str, number: int) -> Awaitable[object]:
        return actor.group_send(task, moments.group, number)

    def send(task: str, number: int) -> Awaitable[object]:
        return actor.send(task, moments.channel, number)

    return [
        *(actor.read(channel) for channel in channels),
        *(write(actor, f"publisher{n}", moments, publish) for n in range(PUBLISHERS)),
        *(write(actor, f"sender{n}", moments, send) for n in range(SENDERS)),
        conduct(actor, moments),
    ]


async def conduct(actor: Actor, moments: Moments) -> None:
    """Call the moments, and once more at the end."""
    chance = actor.chance("moments")
    while actor.writing:
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        moments.come(chance.choice(GROUPS), chance.choice(actor.addresses()))


async def write(
    actor: Actor, task: str, moments: Moments, one: Callable[[str, int], Awaitable[object]]
) -> None:
    """One message at each moment."""
    number = 0
    while actor.writing:
        await moments.next()
        number += 1
        await one(task, number)
