"""What a task wrote lately, remembered from one call to the next by a context variable.

Positions mean something only on the shards and under the prefix that they were counted for, so a
task that uses several layers has a trail for each *scope*. Layers of one process with the same
scope share it. Note that ``async_to_sync`` carries a context from one event loop to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Hashable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Final, TypeAlias

from cluster_layer.lanes import Lane
from cluster_layer.loops import run_on, runs_here
from cluster_layer.marks import Trail
from cluster_layer.writes import Write

MAX_SCOPES: Final = 16  # of one task; the one written to longest ago is forgotten first


class Unanswered:
    """Writes of a task to one lane that are on their way, and what it had written before.

    The task goes on writing to that lane behind them, on the same connection and by the same
    routes. Before it writes to another lane they must have been answered, because what it writes
    there names their positions. Belongs to one loop.
    """

    __slots__ = (
        "_doubtful",
        "_settled",
        "_writes",
        "before",
        "closed",
        "connection",
        "epoch",
        "incarnation",
        "lane",
        "loop",
        "position",
    )

    def __init__(
        self, before: Trail, lane: Lane, epoch: int, connection: object, incarnation: str
    ) -> None:
        self.before = before
        self.lane = lane
        self.epoch = epoch
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        self.closed = False  # nothing more is added
        self.position: int | None = None  # the highest that has been answered
        self.incarnation = incarnation
        self._writes: dict[Write, None] = {}  # on their way, in their order
        self._doubtful: list[Write] = []  # of unknown outcome and position
        self._settled: asyncio.Future[None] | None = None

    @property
    def on_their_way(self) -> int:
        return len(self._writes)

    def add(self, write: Write) -> None:
        self._writes[write] = None

    def answered(self, write: Write, position: int | None, *, in_doubt: bool = False) -> None:
        """One of them was; None: it was not written, or, in doubt, nobody knows where."""
        if position is not None and (self.position is None or position > self.position):
            self.position = position
            self._doubtful.clear()  # what came before it is not beyond it
        if in_doubt:
            self._doubtful.append(write)
        del self._writes[write]
        if not self._writes and self._settled is not None:
            self._settled.set_result(None)
            self._settled = None

    def trail(self, now: float) -> Trail:
        """The task's trail, once all of them have been answered; else what is known of it."""
        trail, life = self.before, self.incarnation
        if self.position is not None:
            trail = trail.after(self.lane, life, self.position, now, self.epoch)
        for write in (*self._doubtful, *self._writes):
            trail = trail.in_doubt(self.lane, life, write.fingerprint(), now, self.epoch)
        return trail

    async def settled(self) -> None:
        """Return when all of them have been answered."""
        if self.on_their_way:
            self.closed = True
            self._settled = self._settled or self.loop.create_future()
            await asyncio.shield(self._settled)


Past: TypeAlias = Trail | Unanswered


class PastCell:
    """Carries a task's past into a write, perhaps on another loop, and back."""

    __slots__ = ("past",)

    def __init__(self, past: Past) -> None:
        self.past = past


async def settled(past: Past, timeout_s: float) -> Trail:
    """The trail, once everything in it has been answered.

    What has not been after so long, or lived on a loop that has ended, counts as unknown.
    """
    if isinstance(past, Trail):
        return past
    if past.on_their_way and past.loop.is_running():
        waiting = past.settled()
        try:
            async with asyncio.timeout(timeout_s):
                await (waiting if runs_here(past.loop) else run_on(past.loop, waiting))
        except TimeoutError:
            pass
    return past.trail(monotonic())


def settled_here(past: Past, timeout_s: float) -> Trail:
    """`settled`, for a thread that runs no loop."""
    if isinstance(past, Trail):
        return past
    if past.on_their_way and past.loop.is_running():
        waiting = asyncio.run_coroutine_threadsafe(past.settled(), past.loop)
        with contextlib.suppress(TimeoutError):
            waiting.result(timeout_s)
        waiting.cancel()
    return past.trail(monotonic())


_NOTHING: Final = Trail()

_pasts: contextvars.ContextVar[Mapping[Hashable, Past]] = contextvars.ContextVar(
    "cluster_layer_trails",
    default=MappingProxyType({}),
)


def recall(scope: Hashable) -> Past:
    """What the running task wrote lately in a scope."""
    return _pasts.get().get(scope, _NOTHING)


def remember(scope: Hashable, past: Past) -> None:
    """From now on this is what the running task wrote lately in a scope."""
    pasts = _pasts.get()
    if len(pasts) == 1 and scope in pasts:  # nearly every program has one layer
        _pasts.set({scope: past})
        return
    renewed = {other: kept for other, kept in pasts.items() if other != scope}
    if len(renewed) >= MAX_SCOPES:
        del renewed[next(iter(renewed))]
    renewed[scope] = past
    _pasts.set(renewed)
