"""Questions to all processes: published on a shard, answered into a list there.

PUBLISH says how many subscribers there are, so whoever asks knows how many answers to wait for.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cluster_layer import scripts
from cluster_layer.connection import Connection
from cluster_layer.session import CommandRefused

KEPT_MS: Final = 60_000  # how long answers that nobody reads stay on a shard
POLL_S: Final = (0.001, 0.05)  # first and longest pause between two looks


async def give(connection: Connection, key: bytes, answer: str | bytes) -> None:
    """Answer a question. ClusterError: whoever asked may not hear of it."""
    command = ("EVALSHA", scripts.ANSWER.sha, 1, key, answer, KEPT_MS)
    try:
        await connection.execute(command)
    except CommandRefused as refusal:
        if "NOSCRIPT" not in refusal.reason:
            raise
        await connection.execute(("SCRIPT", "LOAD", scripts.ANSWER.text), command)


async def wait_for(connection: Connection, key: bytes, count: int, timeout_s: float) -> bool:
    """Return when there are so many answers, or the time is over (False). ClusterError."""
    pause_s = POLL_S[0]
    try:
        async with asyncio.timeout(timeout_s):
            while await connection.execute(("LLEN", key)) < count:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, POLL_S[1])
    except TimeoutError:
        return False
    return True


async def take(connection: Connection, key: bytes) -> list[bytes]:
    """The answers that have come; their list is no more. ClusterError."""
    replies: list[Any] = await connection.execute(("LRANGE", key, 0, -1), ("DEL", key))
    answers: list[bytes] = replies[0]
    return answers
