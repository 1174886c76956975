"""Unconfirmed writes: tasks that mix verbs in runs, and wait for no answer (`confirm=False`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import groups
from chaos.workloads.actor import Actor

CONFIG = {"confirm": False, "capacity": 20_000}
GROUPS = tuple(f"unconfirmed-{number}" for number in range(6))
WRITERS = 4
RUN = (1, 40)  # messages
PAUSE_S = (0.02, 0.2)
ASK_EVERY_S = 0.2


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    actor.confirmed = False
    channels = await groups.open_members(actor, GROUPS)
    writers = [write(actor, f"unconfirmed{index}") for index in range(WRITERS)]
    return [*(actor.read(channel) for channel in channels), *writers, ask(actor)]


async def write(actor: Actor, task: str) -> None:
    """Runs of messages to one channel and now and then to a group, each written at once."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        channel = chance.choice(actor.addresses())
        for _ in range(chance.randint(*RUN)):
            number += 1
            if chance.random() < 0.8:
                await actor.send(task, channel, number)
            else:
                await actor.group_send(task, chance.choice(GROUPS), number)
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def ask(actor: Actor) -> None:
    """Find out what became of the messages, also after the last of them."""
    while True:
        await asyncio.sleep(ASK_EVERY_S)
        await actor.learn_outcomes()
