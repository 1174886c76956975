"""Pressure: slow readers, so that channels fill up and messages expire."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import churn, direct, groups, normal
from chaos.workloads.actor import Actor

CONFIG = {"capacity": 20, "expiry": 2}
REST_S = (0.0, 0.0, 0.0, 0.01, 0.05, 3.0)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = [await actor.open_channel() for _ in range(2)]
    for channel in channels:
        for group in groups.GROUPS[:3]:
            await actor.join("setup", group, channel)
    return [
        *(dawdle(actor, channel) for channel in (*channels, *normal.QUEUES)),
        *(stay_joined(actor, f"member{n}", channel) for n, channel in enumerate(channels)),
        direct.write(actor, "direct"),
        normal.write(actor, "queue"),
        churn.write_to_groups(actor, "room"),
    ]


async def dawdle(actor: Actor, channel: str) -> None:
    """Receive, and rest now and then, sometimes for longer than messages live."""
    chance = actor.chance(f"read {channel.partition('!')[0]}")
    while True:
        actor.received(channel, await actor.layer.receive(channel))
        if actor.writing:
            await asyncio.sleep(chance.choice(REST_S) if chance.random() < 0.1 else 0.0)


async def stay_joined(actor: Actor, task: str, channel: str) -> None:
    """Join again all the time: messages that expire unread end memberships."""
    while actor.writing:
        for group in groups.GROUPS[:3]:
            await actor.join(task, group, channel)
        await asyncio.sleep(0.5)
