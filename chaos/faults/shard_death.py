"""A shard is killed, and comes back: blank, with old data, or as its own lagging replica."""

from __future__ import annotations

import asyncio

from chaos.environments.local import AOF_SHARD, REPLICA_SHARD, LocalShard, wipe
from chaos.faults.base import Fault

SAVE_ATTEMPTS = 50
SAVE_PAUSE_S = 0.01


class BlankRestart(Fault):
    """kill -9; at the end it starts with nothing."""

    name = "shard-kill"

    async def inject(self) -> None:
        await asyncio.to_thread(self.shard.server.kill)
        self.effect += 1

    async def heal(self) -> None:
        wipe(self.shard.server)
        await asyncio.to_thread(self.shard.server.start)


class StaleRestart(Fault):
    """A dump is saved; at the end of the window, after more traffic, kill -9 and back with it."""

    name = "stale-rdb"

    @property
    def shard(self) -> LocalShard:
        shards = self.cluster.shards
        others = [shard for shard in shards if shard.index != AOF_SHARD]
        return others[self.strike.shard % len(others)]

    async def inject(self) -> None:
        # A dump without keys would bring nothing back: wait a moment for messages that wait.
        for _ in range(SAVE_ATTEMPTS):
            if await self.shard.ask("DBSIZE"):
                break
            await asyncio.sleep(SAVE_PAUSE_S)
        await self.shard.ask("SAVE")

    async def heal(self) -> None:
        await _restart_with_data(self)


class AofRestart(Fault):
    """kill -9 and a restart from the append-only file, which may hold what was read since."""

    name = "stale-aof"

    @property
    def shard(self) -> LocalShard:
        return self.cluster.shards[AOF_SHARD]

    async def inject(self) -> None:
        await self.shard.ask("PING")

    async def heal(self) -> None:
        await _restart_with_data(self)


async def _restart_with_data(fault: Fault) -> None:
    """Restart; the effect is the number of keys that the restart brought back."""
    await asyncio.to_thread(fault.shard.server.kill)
    await asyncio.to_thread(fault.shard.server.start)
    found = await fault.shard.ask("DBSIZE")
    fault.effect = found if isinstance(found, int) else 0


class ReplicaPromoted(Fault):
    """The replica is cut off, so that it lags; then the primary dies and it takes the place."""

    name = "replica-promoted"
    needs_replica = True

    @property
    def shard(self) -> LocalShard:
        return self.cluster.shards[REPLICA_SHARD]

    async def inject(self) -> None:
        if self.shard.replication is not None:
            await asyncio.to_thread(self.shard.replication.blackhole, "both", swallow=True)

    async def heal(self) -> None:
        await self.shard.promote()
        for link in self.cluster.links_to(self.shard):
            await asyncio.to_thread(link.retarget, "127.0.0.1", self.shard.server.port)
        self.effect += 1
