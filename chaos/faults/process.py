"""A process with a layer dies or stands still."""

from __future__ import annotations

import asyncio

from chaos.faults.base import Fault


class _ProcessFault(Fault):
    @property
    def shards(self) -> tuple[str, ...]:
        return ()

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.process.name,)


class ProcessKilled(_ProcessFault):
    """kill -9; at the end another one starts in its place."""

    name = "process-kill"

    async def inject(self) -> None:
        await asyncio.to_thread(self.process.kill)
        self.effect += 1

    async def heal(self) -> None:
        self.process.start(self.cluster.plan)
        await self.process.ready()


class ProcessPaused(_ProcessFault):
    """SIGSTOP, longer than the timeouts of the layer."""

    name = "process-pause"

    async def inject(self) -> None:
        self.process.pause()
        self.effect += 1

    async def heal(self) -> None:
        self.process.resume()
