"""Mixed verbs: one task writes to the same channel directly and by way of its groups."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import groups
from chaos.workloads.actor import Actor

GROUPS = tuple(f"mixed-{number}" for number in range(6))  # on all of three shards
PAUSE_S = (0.0, 0.012)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = await groups.open_members(actor, GROUPS)
    writers = [write(actor, f"mixed{index}") for index in range(2)]
    return [*(actor.read(channel) for channel in channels), *writers]


async def write(actor: Actor, task: str) -> None:
    """Now a direct message, now one to a group, often at once one after the other."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        if chance.random() < 0.7:
            await actor.send(task, chance.choice(actor.addresses()), number)
        else:
            await actor.group_send(task, chance.choice(GROUPS), number)
        if chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
