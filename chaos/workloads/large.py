"""Large messages: up to what one may hold by default, by all verbs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

from chaos.workloads import groups, normal
from chaos.workloads.actor import Actor

GROUPS = tuple(f"large-{number}" for number in range(2))
CHANNELS = 3  # one on each shard, as a rule: with few names none may be on one
SIZE = (1_000, 1_000_000)  # bytes, evenly by the logarithm
PAUSE_S = (0.02, 0.15)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    actor.ballast = ballast
    channels = await groups.open_members(actor, GROUPS, CHANNELS)
    return [
        *(actor.read(channel) for channel in (*channels, *normal.QUEUES[:2])),
        write(actor, "large"),
    ]


def ballast(number: int) -> bytes:
    """Bytes that tell when they have been mixed up or cut off; each number has its own."""
    chance = Random(number)
    low, high = SIZE
    size = int(low * (high / low) ** chance.random())
    pattern = chance.randbytes(997)  # a prime: no piece of the network's is a multiple of it
    return (pattern * (size // len(pattern) + 1))[:size]


async def write(actor: Actor, task: str) -> None:
    """Now a direct message, now one to a queue, now one to a group."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        draw = chance.random()
        if draw < 0.5:
            await actor.send(task, chance.choice(actor.addresses()), number)
        elif draw < 0.7:
            await actor.send(task, chance.choice(normal.QUEUES[:2]), number)
        else:
            await actor.group_send(task, chance.choice(GROUPS), number)
        await asyncio.sleep(chance.uniform(*PAUSE_S))
