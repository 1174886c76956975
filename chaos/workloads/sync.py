"""Synchronous callers: threads that make an event loop for every single call, as views do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import groups, normal
from chaos.workloads.actor import Actor

CALLERS = 2
PAUSE_S = (0.005, 0.03)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = await groups.open_members(actor, groups.GROUPS[:3])
    callers = [asyncio.to_thread(call, actor, f"sync{index}") for index in range(CALLERS)]
    return [
        *(actor.read(channel) for channel in channels),
        *(actor.read(queue) for queue in normal.QUEUES),
        *callers,
    ]


def call(actor: Actor, task: str) -> None:
    """Write by all verbs, each call on a loop of its own, until writing ends.

    Such calls are no single task, so only what goes to one name has an order among itself.
    """
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        draw = chance.random()
        if draw < 0.4:
            name = chance.choice(actor.addresses())
            work = actor.send(f"{task} {name}", name, number)
        elif draw < 0.7:
            name = chance.choice(normal.QUEUES)
            work = actor.send(f"{task} {name}", name, number)
        else:
            name = chance.choice(groups.GROUPS[:3])
            work = actor.group_send(f"{task} {name}", name, number)
        asyncio.run(work)
        time.sleep(chance.uniform(*PAUSE_S))
