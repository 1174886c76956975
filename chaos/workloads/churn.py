"""Churn: receivers and writers that are cancelled at every moment, whatever way they go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chaos.workloads import direct, groups, normal
from chaos.workloads.actor import Actor

HURRY_S = (None, None, None, 0.0, 0.0005, 0.002)
AGAIN_S = 0.1  # after an error of receive(), which there should not be
PATIENCE_S = (0.0, 0.0, 0.001, 0.005, 0.03)


async def tasks(actor: Actor) -> list[Coroutine[Any, Any, None]]:
    channels = await groups.open_members(actor, groups.GROUPS[:3])
    return [
        *(flutter(actor, channel) for channel in (*channels, *normal.QUEUES)),
        direct.write(actor, "direct"),
        normal.write(actor, "queue"),
        write_to_groups(actor, "room"),
        write_hurriedly(actor, "hurried"),
    ]


async def flutter(actor: Actor, channel: str) -> None:
    """Receive with little patience, again and again."""
    chance = actor.chance(f"read {channel.partition('!')[0]}")
    while True:
        receiving: asyncio.Task[Any] = asyncio.create_task(_receive(actor, channel))
        try:
            await asyncio.wait([receiving], timeout=chance.choice(PATIENCE_S))
        finally:
            receiving.cancel()
            result: Any = (await asyncio.gather(receiving, return_exceptions=True))[0]
            if isinstance(result, dict):
                actor.received(channel, result)
            elif not isinstance(result, asyncio.CancelledError):
                actor.failed(f"receive({channel})", result)
                await asyncio.sleep(AGAIN_S)


async def _receive(actor: Actor, channel: str) -> Any:
    return await actor.layer.receive(channel)


async def write_hurriedly(actor: Actor, task: str) -> None:
    """Mix the verbs, and cancel a call now and then."""
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        patience_s = chance.choice(HURRY_S)
        if chance.random() < 0.5:
            await actor.send(task, chance.choice(actor.addresses()), number, patience_s)
        else:
            await actor.group_send(task, chance.choice(groups.GROUPS[:3]), number, patience_s)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.uniform(*groups.PAUSE_S))


async def write_to_groups(actor: Actor, task: str) -> None:
    chance = actor.chance(task)
    number = 0
    while actor.writing:
        number += 1
        await actor.group_send(task, chance.choice(groups.GROUPS[:3]), number)
        await asyncio.sleep(chance.uniform(*groups.PAUSE_S))
