"""Volume: as many messages as the machine can, by all three ways at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.history import Outcome
from chaos.workloads import normal
from chaos.workloads.actor import Actor

CONFIG = {"capacity": 20_000}
GROUPS = tuple(f"volume-{number}" for number in range(8))
READERS = 3
WRITERS = 100  # replies come in batches, and so do requests
REFUSED_S = 0.02
LOOKS = 200  # messages between two looks at who is there


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = [await actor.open_channel() for _ in range(READERS)]
    for index, group in enumerate(GROUPS):
        await actor.join("setup", group, channels[index % READERS])
    return [
        *(actor.read(channel) for channel in (*channels, *normal.QUEUES)),
        *(write(actor, f"volume{index}") for index in range(WRITERS)),
    ]


async def write(actor: Actor, task: str) -> None:
    """Mostly direct messages, some to queues, a few to groups."""
    chance = actor.chance(task)
    number = 0
    while True:
        addresses = actor.addresses()
        for _ in range(LOOKS):
            if not actor.writing:
                return
            number += 1
            draw = chance.random()
            if draw < 0.7:
                outcome = await actor.send(task, chance.choice(addresses), number)
            elif draw < 0.9:
                outcome = await actor.send(task, chance.choice(normal.QUEUES), number)
            else:
                outcome = await actor.group_send(task, chance.choice(GROUPS), number)
            if outcome is Outcome.NO:
                await asyncio.sleep(REFUSED_S)  # what is not sent is no volume
