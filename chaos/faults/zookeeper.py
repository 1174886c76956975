"""Whatever happens to ZooKeeper, traffic goes on: nothing of it excuses a loss (P7)."""

from __future__ import annotations

import asyncio
import time

from chaos.environments.base import Need
from chaos.environments.zookeeper import SESSION_S
from chaos.faults.base import Fault
from topology.codec import encode

MOVES_WITHIN_S = 10.0
SESSIONS_WITHIN_S = 5.0
LOOK_AGAIN_S = 0.1
GARBAGE = b"\x00\xffnot a topology"


class _ZooKeeperFault(Fault):
    needs = frozenset({Need.ZOOKEEPER})
    invariant = "P7"
    in_storms = False  # storms with ZooKeeper name them

    @property
    def shards(self) -> tuple[str, ...]:
        return ()


class ServerKilled(_ZooKeeperFault):
    """kill -9 of one server of three; the others go on."""

    name = "zookeeper-kill"
    zookeeper_servers = 3

    async def inject(self) -> None:
        servers = self.cluster.zookeeper.servers
        await asyncio.to_thread(servers[self.strike.process % len(servers)].kill)
        self.effect += 1

    async def heal(self) -> None:
        await asyncio.to_thread(self.cluster.zookeeper.start_all)


class QuorumLost(_ZooKeeperFault):
    """kill -9 of two servers of three: the third serves nobody."""

    name = "zookeeper-quorum"
    zookeeper_servers = 3

    async def inject(self) -> None:
        spared = self.strike.process
        servers = self.cluster.zookeeper.servers
        for index, server in enumerate(servers):
            if index != spared % len(servers):
                await asyncio.to_thread(server.kill)
                self.effect += 1

    async def heal(self) -> None:
        await asyncio.to_thread(self.cluster.zookeeper.start_all)


class EnsembleLost(_ZooKeeperFault):
    """kill -9 of all servers."""

    name = "zookeeper-lost"
    duration_s = (5.0, 6.0)

    @property
    def processes(self) -> tuple[str, ...]:
        return ()

    async def inject(self) -> None:
        for server in self.cluster.zookeeper.servers:
            await asyncio.to_thread(server.kill)
            self.effect += 1

    async def heal(self) -> None:
        await asyncio.to_thread(self.cluster.zookeeper.start_all)


class SessionExpired(_ZooKeeperFault):
    """One process cannot reach ZooKeeper for longer than its session lives."""

    name = "session-expired"
    _before: frozenset[str] = frozenset()
    duration_s = (2.5 * SESSION_S, 3.5 * SESSION_S)

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.process.name,)

    async def inject(self) -> None:
        zookeeper = self.cluster.zookeeper
        # After another fault a process may not have got its new session yet.
        deadline = time.monotonic() + SESSIONS_WITHIN_S
        while time.monotonic() < deadline:
            self._before = await asyncio.to_thread(zookeeper.sessions)
            if len(self._before) >= len(self.cluster.processes):
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        for link in zookeeper.links_of(self.process.index):
            await asyncio.to_thread(link.blackhole, "both", swallow=True)

    async def heal(self) -> None:
        zookeeper = self.cluster.zookeeper
        # The ensemble counts in ticks, and has them when it gets round to it.
        deadline = time.monotonic() + SESSIONS_WITHIN_S
        while time.monotonic() < deadline:
            after = await asyncio.to_thread(zookeeper.sessions)
            self.effect = len(self._before - after)
            if self.effect:
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        for link in zookeeper.links_of(self.process.index):
            await asyncio.to_thread(link.heal)


class StaleRead(_ZooKeeperFault):
    """One process reads from a server that is behind: it finds an older epoch than it knows."""

    name = "stale-read"
    duration_s = (3.0, 5.0)

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.process.name,)

    async def inject(self) -> None:
        zookeeper = self.cluster.zookeeper
        behind = await asyncio.to_thread(zookeeper.elsewhere)
        await asyncio.to_thread(zookeeper.advance)
        await asyncio.sleep(0.5)  # everybody hears of it
        self._links = zookeeper.links_of(self.process.index)
        for link in self._links:
            # Whoever is cut off may come again before the last link leads there.
            self.effect -= link.connections_accepted
            await asyncio.to_thread(link.retarget, behind.host, behind.port)
        # Its client waits before it connects again, longer after other faults.
        until_s = time.monotonic() + MOVES_WITHIN_S
        while self._accepted() + self.effect == 0 and time.monotonic() < until_s:
            await asyncio.sleep(0.05)

    async def heal(self) -> None:
        self.effect += self._accepted()
        for link, server in zip(self._links, self.cluster.zookeeper.servers, strict=True):
            await asyncio.to_thread(link.retarget, server.host, server.port)

    def _accepted(self) -> int:
        return sum(link.connections_accepted for link in self._links)


class _ZnodeFault(_ZooKeeperFault):
    """Something is written where the topology is; at the end a good one follows."""

    async def inject(self) -> None:
        await asyncio.to_thread(self.cluster.zookeeper.overwrite, await self._data())
        self.effect += 1

    async def heal(self) -> None:
        await asyncio.to_thread(self.cluster.zookeeper.advance)

    async def _data(self) -> bytes | None:
        raise NotImplementedError


class ZnodeGarbage(_ZnodeFault):
    """The znode holds bytes that are no topology."""

    name = "znode-garbage"

    async def _data(self) -> bytes | None:
        return GARBAGE


class ZnodeDeleted(_ZnodeFault):
    """The znode is gone."""

    name = "znode-deleted"

    async def _data(self) -> bytes | None:
        return None


class EpochRollback(_ZnodeFault):
    """The znode holds an older epoch, as after a restore from a backup."""

    name = "epoch-rollback"

    async def _data(self) -> bytes | None:
        zookeeper = self.cluster.zookeeper
        old = encode(zookeeper.topology)
        await asyncio.to_thread(zookeeper.advance)
        await asyncio.sleep(0.5)  # everybody hears of it
        return old
