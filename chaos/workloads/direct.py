"""Direct messages: every process sends to process-specific channels of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads.actor import Actor

READERS = 3  # as many as there are shards by default: each process has an inbox on each
WRITERS = 2
PAUSE_S = (0.002, 0.02)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    """Open the channels; returns what is to run until it is cancelled or done."""
    channels = [await actor.open_channel() for _ in range(READERS)]
    writers = [write(actor, f"direct{index}") for index in range(WRITERS)]
    return [*(actor.read(channel) for channel in channels), *writers]


async def write(actor: Actor, task: str) -> None:
    """Send to random channels until writing ends."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        await actor.send(task, chance.choice(actor.addresses()), number)
        await asyncio.sleep(chance.uniform(*PAUSE_S))
