"""Real servers and processes on this machine, with a proxy on every link between them.

Each process has a topology file of its own, in which every shard is reached through the process's
own proxy: so each single link can fail.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.environments.control import Reply, ask
from chaos.environments.proxy import TcpProxy
from chaos.environments.worker import Orders
from chaos.history import Audit, Event, Life, parse
from cluster_layer.embedded import RedisServer
from cluster_layer.processes import ChildProcess
from cluster_layer.routing import fixed_cluster
from topology.codec import encode
from topology.errors import ClusterError
from topology.model import Shard
from topology.planning import initial_topology

AOF_SHARD = 0  # the shard that writes an append-only file
REPLICA_SHARD = 1  # the shard that has a replica, if the scenario wants one
WORKER = (sys.executable, "-m", "chaos.environments.worker")

_START_WITHIN_S = 60.0


class EnvironmentFailed(ClusterError):
    """The environment could not be set up or did not do what it was told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the environment consists of; `config` are settings of the layer."""

    workload: str
    seed: str
    config: Mapping[str, Any]
    shards: int = 3
    processes: int = 3
    replica: bool = False
    worker: Sequence[str] = WORKER


class LocalShard:
    """One redis-server, perhaps with a replica that can take its place."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = f"shard-{index}"
        aof = {"appendonly": "yes", "appendfsync": "always"} if index == AOF_SHARD else {}
        self.server = RedisServer(options=aof)
        self.replica: RedisServer | None = None
        self.replication: TcpProxy | None = None

    async def ask(self, *command: str, server: RedisServer | None = None) -> Reply:
        """Run one command on the server itself, past all proxies."""
        return await ask((server or self.server).port, *command)

    async def start(self, *, with_replica: bool) -> None:
        await asyncio.to_thread(self.server.start)
        if with_replica:
            await self.attach(RedisServer())

    async def attach(self, replica: RedisServer) -> None:
        """Start a replica, and return when it has the primary's data."""
        await asyncio.to_thread(replica.start)
        self.replica = replica
        self.replication = TcpProxy("127.0.0.1", self.server.port)
        await self.ask("REPLICAOF", "127.0.0.1", str(self.replication.port), server=replica)
        async with asyncio.timeout(_START_WITHIN_S):
            while not await self._has_data(replica):
                await asyncio.sleep(0.05)

    async def _has_data(self, replica: RedisServer) -> bool:
        info = await self.ask("INFO", "replication", server=replica)
        return isinstance(info, bytes) and b"master_link_status:up" in info

    async def promote(self) -> None:
        """The replica becomes the primary; the old one is killed and comes back as a replica."""
        if self.replica is None or self.replication is None:
            raise EnvironmentFailed(f"{self.id} has no replica to promote")
        old, replication = self.server, self.replication
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(replication.close)
        await self.ask("REPLICAOF", "NO", "ONE", server=self.replica)
        self.server, self.replica, self.replication = self.replica, None, None
        wipe(old)
        await self.attach(old)

    async def audit(self) -> Audit:
        """Count keys, keys without a TTL, and the items of lists, which are queues."""
        # Nobody waits for this server any more, so KEYS disturbs no one.
        keys = await self.ask("KEYS", "*")
        names = (
            [key.decode() for key in keys if isinstance(key, bytes)]
            if isinstance(keys, list)
            else []
        )
        lives = [await self.ask("PTTL", name) for name in names]
        lists = [name for name in names if await self.ask("TYPE", name) == b"list"]
        lengths = [await self.ask("LLEN", name) for name in lists]
        waiting = sum(length for length in lengths if isinstance(length, int))
        return Audit(self.id, len(names), lives.count(-1), waiting)

    def close(self) -> None:
        for server in (self.server, self.replica):
            if server is not None:
                server.close()
        if self.replication is not None:
            self.replication.close()


class LocalProcess:
    """One process with a layer, in as many lives as it takes."""

    def __init__(self, index: int, directory: Path, shards: Sequence[LocalShard]) -> None:
        self.index = index
        self.name = f"p{index}"
        self.lives: list[Life] = []
        self.links = {shard.id: TcpProxy("127.0.0.1", shard.server.port) for shard in shards}
        self._directory = directory
        self._child: ChildProcess | None = None
        self._began_s = 0.0
        self._topology = directory / f"{self.name}.topology.json"
        reached = [Shard(shard_id, proxy.url) for shard_id, proxy in self.links.items()]
        # All processes are of one cluster, although each has URLs of its own.
        cluster = fixed_cluster(self.links)
        self._topology.write_bytes(encode(initial_topology(reached, cluster=cluster)))

    @property
    def life(self) -> str:
        return f"{self.name}.{len(self.lives)}"

    def start(self, plan: Plan) -> None:
        orders = Orders(
            process=self.life,
            workload=plan.workload,
            seed=plan.seed,
            config={**plan.config, "topology": self._topology.as_uri()},
            directory=str(self._directory),
        )
        path = self._directory / f"{self.life}.orders"
        path.write_text(json.dumps(asdict(orders)), encoding="utf-8")
        self._began_s = time.monotonic()
        output = self._directory / f"{self.life}.log"
        self._child = ChildProcess([*plan.worker, str(path)], output=output)

    async def ready(self) -> None:
        """Wait until it is; EnvironmentFailed with its last words if it ended before."""
        path = self._directory / f"{self.life}.ready"
        async with asyncio.timeout(_START_WITHIN_S):
            while not path.exists():
                if self._child is None or not self._child.running:
                    said = self._child.output() if self._child else "it was not started"
                    raise EnvironmentFailed(f"process {self.life} ended early:\n{said}")
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._child is not None:
            self._child.kill()
            self._note_end(killed=True)

    def pause(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGCONT)

    async def ended(self, within_s: float) -> None:
        """Wait for the planned end; EnvironmentFailed if it does not come or is not orderly."""
        child = self._child
        if child is None:
            return
        if not await asyncio.to_thread(child.wait, within_s):
            self.kill()
            raise EnvironmentFailed(f"process {self.life} did not end by itself")
        code, life = child.exit_code, self.life
        self._note_end(killed=False)
        if code != 0:
            raise EnvironmentFailed(f"process {life} ended with {code}:\n{child.output()}")

    def close(self) -> None:
        self.kill()
        for proxy in self.links.values():
            proxy.close()

    def _note_end(self, *, killed: bool) -> None:
        self.lives.append(Life(self.life, self._began_s, time.monotonic(), killed))
        self._child = None


class LocalCluster:
    """All shards, links and processes of one run; use as an asynchronous context manager."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.shards = [LocalShard(index) for index in range(plan.shards)]
        self.processes: list[LocalProcess] = []
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for shard in self.shards:
                opening.callback(shard.close)
            for shard in self.shards:
                with_replica = self.plan.replica and shard.index == REPLICA_SHARD
                await shard.start(with_replica=with_replica)
            for index in range(self.plan.processes):
                process = LocalProcess(index, self.directory, self.shards)
                opening.callback(process.close)
                self.processes.append(process)
                process.start(self.plan)
            for process in self.processes:
                await process.ready()
            self._opened = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opened.aclose()

    def begin(self, *, began_s: float, quiet_s: float, ended_s: float) -> None:
        """Let the processes begin; times of the monotonic clock."""
        times = {"began_s": began_s, "quiet_s": quiet_s, "ended_s": ended_s}
        fresh = self.directory / "begin.new"
        fresh.write_text(json.dumps(times), encoding="utf-8")
        fresh.replace(self.directory / "begin")

    def links_to(self, shard: LocalShard) -> list[TcpProxy]:
        return [process.links[shard.id] for process in self.processes]

    def recorded(self) -> list[Event]:
        """What the processes have written down until now."""
        events: list[Event] = []
        for path in sorted(self.directory.glob("*.events")):
            with path.open(encoding="utf-8") as lines:
                events += parse(lines)
        return events


def wipe(server: RedisServer) -> None:
    """Remove what a stopped server would load at its next start."""
    for path in sorted(server.directory.rglob("*"), reverse=True):
        if path.suffix in (".rdb", ".aof", ".manifest", ".incr", ".base"):
            path.unlink()
