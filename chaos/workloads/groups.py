"""Groups: members come and go, and a moderator in each process adds and kicks others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from chaos.workloads.actor import Actor

GROUPS = tuple(f"room-{number}" for number in range(6))
STABLE = 2  # channels of a process that stay where they are
RESTLESS = 2
PAUSE_S = (0.004, 0.03)
MODERATION_S = (0.1, 0.4)


async def open_members(actor: Actor, groups: Sequence[str], count: int = 2) -> list[str]:
    """New channels of this process, each a member of all these groups."""
    channels = [await actor.open_channel() for _ in range(count)]
    for channel in channels:
        for group in groups:
            await actor.join("setup", group, channel)
    return channels


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    chance = actor.chance("setup")
    stable = [await actor.open_channel() for _ in range(STABLE)]
    restless = [await actor.open_channel() for _ in range(RESTLESS)]
    for channel in stable:
        for group in chance.sample(GROUPS, 3):
            await actor.join("setup", group, channel)
    return [
        *(actor.read(channel) for channel in (*stable, *restless)),
        *(come_and_go(actor, f"member{n}", channel) for n, channel in enumerate(restless)),
        write(actor, "room0"),
        write(actor, "room1"),
        moderate(actor, "moderator"),
    ]


async def write(actor: Actor, task: str) -> None:
    """Send to random groups until writing ends."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        await actor.group_send(task, chance.choice(GROUPS), number)
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def come_and_go(actor: Actor, task: str, channel: str) -> None:
    """Join and leave at random."""
    chance = actor.chance(task)
    while actor.writing:
        group = chance.choice(GROUPS)
        await actor.join(task, group, channel)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await actor.leave(task, group, channel)


async def moderate(actor: Actor, task: str) -> None:
    """Kick members of other processes, and bring them back."""
    chance = actor.chance(task)
    while actor.writing:
        group, channel = chance.choice(GROUPS), chance.choice(actor.addresses())
        if chance.random() < 0.5:
            await actor.leave(task, group, channel)
        else:
            await actor.join(task, group, channel)
        await asyncio.sleep(chance.uniform(*MODERATION_S))
