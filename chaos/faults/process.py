"""A process with a layer dies, stands still, has a wrong clock, or becomes another version."""

from __future__ import annotations

import asyncio
import time

from chaos.environments.base import Need
from chaos.environments.processes import END
from chaos.faults.base import Fault
from chaos.history import Stall

BLOCK_S = (0.3, 2.0)  # of the event loop: below and above the timeouts of the layer
CLOCK_S = (-86_400.0, -3_600.0, -90.0, 90.0, 3_600.0, 86_400.0)
COMMAND_S = 10.0
END_S = 20.0


class _ProcessFault(Fault):
    needs = frozenset({Need.PROCESSES})

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
        await self.process.surgery.acquire()
        await asyncio.to_thread(self.process.kill)
        self.effect += 1

    async def heal(self) -> None:
        try:
            self.process.start()
            await self.process.ready()
        finally:
            self.process.surgery.release()


class ProcessPaused(_ProcessFault):
    """SIGSTOP, longer than the timeouts of the layer."""

    name = "process-pause"

    async def inject(self) -> None:
        self._began_s = time.monotonic()
        self.process.pause()
        self.effect += 1

    async def heal(self) -> None:
        self.process.resume()
        self.stalls.append(Stall(self.process.name, self._began_s, time.monotonic()))


class LoopBlocked(_ProcessFault):
    """Something in the process blocks its event loop again and again, for shorter and longer."""

    name = "loop-blocked"
    _blocking: asyncio.Task[None]
    _healed = False

    async def inject(self) -> None:
        self._blocking = asyncio.create_task(self._block())

    async def heal(self) -> None:
        self._healed = True
        await self._blocking

    async def _block(self) -> None:
        while not self._healed:
            seconds = self.chance.uniform(*BLOCK_S)
            await self.process.command("block", COMMAND_S, seconds=seconds)
            self.effect += 1


class ClockStep(_ProcessFault):
    """The wall clock of one process is suddenly wrong, by minutes, hours or a day."""

    name = "clock-step"
    invariant = "P10"

    async def inject(self) -> None:
        await self._set(self.chance.choice(CLOCK_S))
        self.effect += 1

    async def heal(self) -> None:
        await self._set(0.0)

    async def _set(self, offset_s: float) -> None:
        await self.process.command("set-clock", COMMAND_S, offset_s=offset_s)


class Upgrade(_ProcessFault):
    """A process ends in good order and comes back as a later version; at the end all the others.

    The later version's messages have fields that the present one does not know, and it sends
    controls that are not known either.
    """

    name = "upgrade"
    invariant = "P4"  # nothing is lost but what was for a process that has gone

    @property
    def processes(self) -> tuple[str, ...]:
        return ()

    async def inject(self) -> None:
        await self._replace(self.strike.process, later=True)

    async def heal(self) -> None:
        for process in self.cluster.processes:
            if process.index != self.strike.process:
                await self._replace(process.index, later=True)

    async def _replace(self, index: int, *, later: bool) -> None:
        process = self.cluster.processes[index]
        async with process.surgery:
            if process.running:
                await process.command(END, END_S)
                await process.ended(END_S)
            process.start(later=later)
            await process.ready()
        self.effect += 1
