"""A shard that lives and does not work, or works badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

from chaos.environments.base import Need
from chaos.environments.clock import ClockedRedis
from chaos.environments.control import CommandFailed, Reply
from chaos.environments.shards import ShardConsole
from chaos.faults.base import Fault
from cluster_layer.embedded import free_port

FILL = "for i = 1, 300 do redis.call('SET', 'filler:' .. i, 'x', 'EX', 60) end"
UNFILL = "for i = 1, 300 do redis.call('DEL', 'filler:' .. i) end"
SAVE_DELAY_US = "20000"  # per key: a dump of the filler alone takes six seconds
STALL_S = (0.05, 0.6)
BETWEEN_STALLS_S = (0.05, 0.4)
BUSY_WITHIN_S = 20.0
BUSY_PAUSE_S = 0.1
CLOCK_S = (-3_600.0, -30.0, 30.0, 3_600.0)


class ShardPaused(Fault):
    """SIGSTOP, longer than the timeouts of the layer."""

    name = "shard-pause"
    needs = frozenset({Need.SERVERS})
    expects_unknown = True

    async def inject(self) -> None:
        await asyncio.to_thread(self.own_shard.server.pause)
        self.effect += 1

    async def heal(self) -> None:
        await asyncio.to_thread(self.own_shard.server.resume)


class _Setting(Fault):
    """A setting of the server is changed, and put back; `console` stays open meanwhile.

    Nobody else may get in to end it.
    """

    needs = frozenset({Need.COMMANDS})
    disturbs_others = True
    setting: ClassVar[str]
    value: ClassVar[str]
    console: ShardConsole
    _before: str

    async def inject(self) -> None:
        self.console = await self.shard.console()
        self._before = await self._change(self.value)
        await self.begin()

    async def heal(self) -> None:
        try:
            await self.end()
            await self._put_back()
        finally:
            await self.console.close()

    async def _put_back(self) -> None:
        """Also where another fault keeps the server busy; one that has died has forgotten it."""
        until_s = time.monotonic() + BUSY_WITHIN_S
        while True:
            try:
                await self._change(self._before)
            except CommandFailed as error:
                if "BUSY" not in str(error) or time.monotonic() > until_s:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S)
            else:
                return

    async def begin(self) -> None:
        """What else is done at the beginning."""
        self.effect += 1

    async def end(self) -> None:
        """What else is done at the end, before the setting is put back."""

    async def _change(self, value: str) -> str:
        """What it was before. CommandFailed."""
        reply = await self.console.ask("CONFIG", "GET", self.setting)
        before = reply[1] if isinstance(reply, list) else None
        if not isinstance(before, bytes):
            raise CommandFailed(f"CONFIG GET {self.setting} answered {reply!r}")
        await self.console.ask("CONFIG", "SET", self.setting, value)
        return before.decode()


class OutOfMemory(_Setting):
    """maxmemory is reached and nothing may be evicted."""

    name = "out-of-memory"
    setting = "maxmemory"
    value = "1"


class MaxClients(_Setting):
    """All connections are closed and no new ones are taken: too many clients."""

    name = "max-clients"
    setting = "maxclients"
    value = "1"

    async def begin(self) -> None:
        for kind in ("normal", "pubsub"):
            await self.console.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        self.effect = -await self._rejected()

    async def end(self) -> None:
        self.effect += await self._rejected()

    async def _rejected(self) -> int:
        info = await self.console.ask("INFO", "stats")
        text = info.decode() if isinstance(info, bytes) else ""
        values = dict(line.partition(":")[::2] for line in text.splitlines())
        return int(values.get("rejected_connections", "0"))


class SlowDisk(Fault):
    """A dump takes long, and the server stalls now and then, as one does whose disk is slow.

    Simulated: the server is told to save slowly, and stopped for moments below and above the
    timeouts of the layer. At the end it is killed amid the dump, and starts with the last whole
    one.
    """

    name = "slow-disk"
    needs = frozenset({Need.SERVERS, Need.COMMANDS, Need.DISKS})
    duration_s = (2.0, 3.5)
    _stalling: asyncio.Task[None]

    async def inject(self) -> None:
        shard = self.own_shard
        # Nobody attaches a replica meanwhile: its copy would be a dump, as slow as ours.
        await shard.surgery.acquire()
        try:
            await shard.ask("EVAL", FILL, "0")
            await shard.ask("CONFIG", "SET", "rdb-key-save-delay", SAVE_DELAY_US)
            await shard.ask("BGSAVE", "SCHEDULE")
        except CommandFailed:
            shard.surgery.release()
            raise
        self._stalling = asyncio.create_task(self._stall())

    async def heal(self) -> None:
        try:
            await self._end()
        finally:
            self.own_shard.surgery.release()

    async def _end(self) -> None:
        self._stalling.cancel()
        await asyncio.gather(self._stalling, return_exceptions=True)
        shard = self.own_shard
        shard.server.resume()
        info = await shard.ask("INFO", "persistence")
        if isinstance(info, bytes) and b"rdb_bgsave_in_progress:1" not in info:
            self.effect = 0  # it was over before: the disk was not slow enough
        dumping = _children_of(shard.server.pid)
        await asyncio.to_thread(shard.server.kill)
        for child in dumping:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        await asyncio.to_thread(shard.server.start)
        await shard.ask("EVAL", UNFILL, "0")

    async def _stall(self) -> None:
        server = self.own_shard.server
        while True:
            await asyncio.sleep(self.chance.uniform(*BETWEEN_STALLS_S))
            server.pause()
            self.effect += 1
            try:
                await asyncio.sleep(self.chance.uniform(*STALL_S))
            finally:
                server.resume()


def _children_of(pid: int) -> list[int]:
    """Where /proc tells; elsewhere a dump goes on for some seconds after its server's death."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


class Busy(_Setting):
    """A script of somebody else runs on and on; everybody is told BUSY until it is killed."""

    name = "busy-script"
    setting = "lua-time-limit"
    value = "50"  # ms
    _script: asyncio.Task[Reply]

    async def begin(self) -> None:
        self._script = asyncio.create_task(self.shard.ask("EVAL", "while true do end", "0"))
        self.effect += 1

    async def end(self) -> None:
        await self.console.ask("SCRIPT", "KILL")
        await asyncio.gather(self._script, return_exceptions=True)


class ReadOnly(Fault):
    """The shard believes to be the replica of a primary that is not there, then leads again."""

    name = "read-only"
    needs = frozenset({Need.COMMANDS})
    disturbs_others = True

    async def inject(self) -> None:
        await self.shard.ask("REPLICAOF", "127.0.0.1", str(await asyncio.to_thread(free_port)))
        self.effect += 1

    async def heal(self) -> None:
        await self.shard.ask("REPLICAOF", "NO", "ONE")


class ShardClock(Fault):
    """The wall clock of one shard's host is set, by minutes or an hour, and set back at the end."""

    name = "shard-clock"
    needs = frozenset({Need.CLOCKS})
    in_storms = False  # it needs a compiler, and the same storm is to blow everywhere

    async def inject(self) -> None:
        await self._set(self.chance.choice(CLOCK_S))

    async def heal(self) -> None:
        await self._set(0.0)

    async def _set(self, offset_s: float) -> None:
        server = self.own_shard.server
        if not isinstance(server, ClockedRedis):
            raise CommandFailed(f"the clock of {self.shard.id} cannot be set")
        server.set_clock(offset_s)
        seconds = await self.shard.ask("TIME")
        first = seconds[0] if isinstance(seconds, list) else b""
        assert isinstance(first, bytes)  # noqa: S101 - that is what TIME answers
        if abs(int(first) - time.time() - offset_s) < 2.0:
            self.effect += 1
