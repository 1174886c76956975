"""Capacity: readers that rest, so that channels fill up; nothing lives long enough to expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import churn, direct, groups, normal
from chaos.workloads.actor import Actor

CONFIG = {"capacity": 20}
REST_S = (0.0, 0.0, 0.0, 0.01, 0.05, 0.4)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = await groups.open_members(actor, groups.GROUPS[:3])
    return [
        *(dawdle(actor, channel, REST_S) for channel in (*channels, *normal.QUEUES)),
        direct.write(actor, "direct"),
        normal.write(actor, "queue"),
        churn.write_to_groups(actor, "room"),
    ]


async def dawdle(actor: Actor, channel: str, rests_s: tuple[float, ...]) -> None:
    """Receive, and rest now and then; at the end take everything that waits.

    Between two rests it receives for as long as the first of them took: two in a row would look
    like a channel that nobody serves.
    """
    chance = actor.chance(f"read {channel.partition('!')[0]}")
    receives_until_s = 0.0
    while True:
        await actor.receive(channel)
        if not actor.writing:
            continue
        rest_s = chance.choice(rests_s) if chance.random() < 0.1 else 0.0
        if time.monotonic() < receives_until_s:
            rest_s = 0.0
        await asyncio.sleep(rest_s)
        receives_until_s = max(receives_until_s, time.monotonic() + rest_s)
