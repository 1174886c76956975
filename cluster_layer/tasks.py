"""The tasks of one owner: each is kept until it ends, and one that fails is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger("cluster_layer")


class Tasks:
    """Belongs to one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this beside all else."""
        return self.own(self._loop.create_task(work))

    def own(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Keep a task that somebody else has begun."""
        self._running.add(task)
        task.add_done_callback(self._reap)
        return task

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all but the one that calls this; returns those that are about to end."""
        others = self._running - {asyncio.current_task(self._loop)}
        for task in others:
            task.cancel()
        return [*others]

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the channel layer failed", exc_info=task.exception())
