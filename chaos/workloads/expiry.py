"""Expiry: readers that rest for longer than messages live; channels have room for all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import churn, direct, groups, normal
from chaos.workloads.actor import Actor
from chaos.workloads.capacity import dawdle

EXPIRY_S = 2
CONFIG = {"expiry": EXPIRY_S}
REST_S = (0.0, 0.0, 0.0, 0.0, 0.05, EXPIRY_S * 1.5)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = await groups.open_members(actor, groups.GROUPS[:3])
    return [
        *(dawdle(actor, channel, REST_S) for channel in (*channels, *normal.QUEUES)),
        *(stay_joined(actor, f"member{n}", channel) for n, channel in enumerate(channels)),
        direct.write(actor, "direct"),
        normal.write(actor, "queue"),
        churn.write_to_groups(actor, "room"),
    ]


async def stay_joined(actor: Actor, task: str, channel: str) -> None:
    """Join again all the time: messages that expire unread end memberships."""
    while actor.writing:
        for group in groups.GROUPS[:3]:
            await actor.join(task, group, channel)
        await asyncio.sleep(0.5)
