"""A shard that lives and does not work."""

from __future__ import annotations

import asyncio

from chaos.environments.control import Reply
from chaos.faults.base import Fault
from cluster_layer.embedded import free_port

BUSY_AFTER_MS = "50"


class ShardPaused(Fault):
    """SIGSTOP, longer than the timeouts of the layer."""

    name = "shard-pause"
    expects_unknown = True

    async def inject(self) -> None:
        self.shard.server.pause()
        self.effect += 1

    async def heal(self) -> None:
        self.shard.server.resume()


class OutOfMemory(Fault):
    """maxmemory is reached and nothing may be evicted."""

    name = "out-of-memory"

    async def inject(self) -> None:
        await self.shard.ask("CONFIG", "SET", "maxmemory", "1")
        self.effect += 1

    async def heal(self) -> None:
        await self.shard.ask("CONFIG", "SET", "maxmemory", "0")


class Busy(Fault):
    """A script of somebody else runs on and on; everybody is told BUSY until it is killed."""

    name = "busy-script"
    _script: asyncio.Task[Reply]

    async def inject(self) -> None:
        await self.shard.ask("CONFIG", "SET", "lua-time-limit", BUSY_AFTER_MS)
        self._script = asyncio.create_task(self.shard.ask("EVAL", "while true do end", "0"))
        self.effect += 1

    async def heal(self) -> None:
        await self.shard.ask("SCRIPT", "KILL")
        await asyncio.gather(self._script, return_exceptions=True)


class ReadOnly(Fault):
    """The shard believes to be the replica of a primary that is not there, then leads again."""

    name = "read-only"

    async def inject(self) -> None:
        await self.shard.ask("REPLICAOF", "127.0.0.1", str(await asyncio.to_thread(free_port)))
        self.effect += 1

    async def heal(self) -> None:
        await self.shard.ask("REPLICAOF", "NO", "ONE")
