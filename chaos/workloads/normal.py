"""Normal channels: a few queues, and readers in all processes that compete for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads.actor import Actor

QUEUES = tuple(f"queue-{number}" for number in range(5))
WRITERS = 2
BURST = 20  # messages on average, one after the other
PAUSE_S = (0.1, 0.5)
WORK_S = (0.0, 0.06)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    writers = [write(actor, f"queue{index}") for index in range(WRITERS)]
    return [*(work(actor, queue) for queue in QUEUES), *writers]


async def work(actor: Actor, queue: str) -> None:
    """Receive and work on each message for a while, so that others wait in the queue."""
    chance = actor.chance(f"read {queue}")
    while True:
        await actor.receive(queue)
        await asyncio.sleep(chance.uniform(*WORK_S) if actor.writing else 0.0)


async def write(actor: Actor, task: str) -> None:
    """Send to random queues, in bursts, until writing ends."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        await actor.send(task, chance.choice(QUEUES), number)
        if chance.random() < 1 / BURST:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
