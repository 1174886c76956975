"""A shard is killed, and comes back: blank, with old data, or as its own lagging replica."""

from __future__ import annotations

import asyncio

from chaos.environments.base import Need
from chaos.environments.shards import AOF_SHARD, REPLICA_SHARD, OwnShard, Server, wipe
from chaos.faults.base import Fault

SAVE_ATTEMPTS = 50
SAVE_PAUSE_S = 0.01


class _ServerFault(Fault):
    needs = frozenset({Need.SERVERS})

    async def _retarget(self, server: Server, processes: list[int]) -> None:
        """From now on these processes find this server where the shard is."""
        for index in processes:
            link = self.cluster.links[index, self.shard.index]
            await asyncio.to_thread(link.retarget, server.host, server.port)

    async def _retarget_all(self, server: Server) -> None:
        await self._retarget(server, self._everybody)
        if (front := self.own_shard.front) is not None:
            await asyncio.to_thread(front.retarget, server.host, server.port)

    @property
    def _everybody(self) -> list[int]:
        return [process.index for process in self.cluster.processes]


class BlankRestart(_ServerFault):
    """kill -9; at the end it starts with nothing."""

    name = "shard-kill"

    async def inject(self) -> None:
        await asyncio.to_thread(self.own_shard.server.kill)
        self.effect += 1

    async def heal(self) -> None:
        shard = self.own_shard
        async with shard.surgery:
            wipe(shard.server)
            await asyncio.to_thread(shard.server.start)


class StaleRestart(_ServerFault):
    """A dump is saved; at the end of the window, after more traffic, kill -9 and back with it."""

    name = "stale-rdb"
    needs = frozenset({Need.SERVERS, Need.COMMANDS, Need.DISKS})

    @property
    def shard(self) -> OwnShard:
        shards = self.cluster.shards
        others = [shard for shard in shards if shard.index != AOF_SHARD]
        return self.cluster.own_shard(others[self.strike.shard % len(others)].index)

    async def inject(self) -> None:
        # A dump without keys would bring nothing back: wait a moment for messages that wait.
        for _ in range(SAVE_ATTEMPTS):
            if await self.shard.ask("DBSIZE"):
                break
            await asyncio.sleep(SAVE_PAUSE_S)
        await self.shard.ask("SAVE")

    async def heal(self) -> None:
        await _restart_with_data(self)


class AofRestart(_ServerFault):
    """kill -9 and a restart from the append-only file, which may hold what was read since."""

    name = "stale-aof"
    needs = frozenset({Need.SERVERS, Need.COMMANDS, Need.DISKS})
    needs_aof = True

    @property
    def shard(self) -> OwnShard:
        return self.cluster.own_shard(AOF_SHARD)

    async def inject(self) -> None:
        await self.shard.ask("PING")

    async def heal(self) -> None:
        await _restart_with_data(self)


async def _restart_with_data(fault: Fault) -> None:
    """Restart; the effect is the number of keys that the restart brought back."""
    shard = fault.own_shard
    async with shard.surgery:
        await asyncio.to_thread(shard.server.kill)
        await asyncio.to_thread(shard.server.start)
    found = await shard.ask("DBSIZE")
    fault.effect = found if isinstance(found, int) else 0


class _ReplicaFault(_ServerFault):
    needs = frozenset({Need.SERVERS, Need.COMMANDS, Need.BYTES, Need.REPLICAS})
    needs_replica = True

    @property
    def shard(self) -> OwnShard:
        return self.cluster.own_shard(REPLICA_SHARD)


class ReplicaPromoted(_ReplicaFault):
    """The replica is cut off, so that it lags; then the primary dies and it takes the place."""

    name = "replica-promoted"

    async def inject(self) -> None:
        if self.shard.replication is not None:
            await asyncio.to_thread(self.shard.replication.blackhole, "both", swallow=True)

    async def heal(self) -> None:
        async with self.shard.surgery:
            await self.shard.promote()
            await self._retarget_all(self.shard.server)
        self.effect += 1


class TwoPrimaries(_ReplicaFault):
    """The replica leads while the primary still does, each for some processes; then one is left."""

    name = "two-primaries"
    duration_s = (2.0, 4.0)

    async def inject(self) -> None:
        shard = self.shard
        async with shard.surgery:
            await shard.split()
            everybody = self._everybody
            some = self.chance.sample(everybody, max(1, len(everybody) // 2))
            await self._retarget(shard.required_replica(), some)
        self.effect += 1

    async def heal(self) -> None:
        shard = self.shard
        async with shard.surgery:
            old = shard.server
            shard.server = shard.required_replica()
            await self._retarget_all(shard.server)
            await asyncio.to_thread(old.kill)
            await shard.rejoin(old)
