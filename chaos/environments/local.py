"""Real servers and processes on this machine, with a proxy on every link between them."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from chaos.environments import redirect
from chaos.environments.base import PREFIX, Need, Plan
from chaos.environments.clock import ClockedRedis, LocalRedis
from chaos.environments.cluster import Cluster
from chaos.environments.operator import Operator
from chaos.environments.processes import WorkerProcess
from chaos.environments.proxy import ProxyThread, TcpProxy
from chaos.environments.shards import AOF_SHARD, REPLICA_SHARD, OwnShard, Server
from chaos.environments.zookeeper import ZooKeeperCluster, own_ensemble
from topology.codec import encode
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology

WORKER: Final = (sys.executable, "-m", "chaos.environments.worker")


SKEW_S: Final = 86_400.0 + 77.7


class LocalCluster(Cluster):
    """The default environment: works as an ordinary user."""

    name = "local"
    provides = frozenset(Need) - {Need.CABLES}

    def __init__(self, plan: Plan, directory: Path) -> None:
        super().__init__(plan, directory)
        self.shards: list[OwnShard] = []
        self.links: dict[tuple[int, int], TcpProxy] = {}

    async def _set_up(self, opening: AsyncExitStack) -> None:
        thread = ProxyThread()
        opening.callback(thread.close)
        for index in range(self.plan.shards + self.plan.spares):
            shard = OwnShard(index, self._server, aof=self.plan.aof and index == AOF_SHARD)
            opening.callback(shard.close)
            self.shards.append(shard)
            if self.plan.skewed and isinstance(shard.server, ClockedRedis):
                shard.server.set_clock((index - 1) * SKEW_S)
            await shard.start(with_replica=self.plan.replica and index == REPLICA_SHARD)
            shard.front = front = TcpProxy("127.0.0.1", shard.server.port, thread=thread)
            opening.callback(front.close)
            shard.url = f"redis://127.0.0.1:{front.port}"
        first = self.shards[: self.plan.shards]
        shards = [Shard(shard.id, shard.url) for shard in first]
        topology = initial_topology(shards, cluster=new_cluster_id())
        if self.plan.zookeeper:
            zookeeper = self._zookeeper = ZooKeeperCluster(
                own_ensemble(self.plan.zookeeper), thread
            )
            opening.callback(zookeeper.close)
            await asyncio.to_thread(zookeeper.start, topology)
        path = self.directory / "topology.json"
        path.write_bytes(encode(topology))
        self._operator = self._operator_of(path)
        opening.callback(self._operator.close)
        if self.plan.monitors:
            await self._operator.start_monitors(self.plan.monitors)
        for index in range(self.plan.processes):
            targets = {}
            for shard in self.shards:
                link = TcpProxy("127.0.0.1", shard.server.port, thread=thread)
                opening.callback(link.close)
                self.links[index, shard.index] = link
                address = urlsplit(shard.url)
                targets[str(address.hostname), int(address.port or 0)] = ("127.0.0.1", link.port)
            redirects = self.directory / f"p{index}.redirect"
            redirect.write(redirects, targets)
            self.processes.append(
                WorkerProcess(
                    index,
                    self.plan,
                    self.directory,
                    config=self._config_of(index, path),
                    hosts=[shard.url for shard in first],
                    redirect=redirects,
                )
            )

    def _operator_of(self, path: Path) -> Operator:
        if self._zookeeper is None:
            url, options = path.as_uri(), {}
        else:
            url, options = self._zookeeper.url, self._zookeeper.options
        return Operator(url, options, self.directory, self.plan.operator)

    def _config_of(self, index: int, path: Path) -> dict[str, Any]:
        if self._zookeeper is None:
            return {"prefix": PREFIX, "topology": path.as_uri()}
        return {
            "prefix": PREFIX,
            "topology": self._zookeeper.settings_of(index),
            "topology_cache": str(self.directory / f"p{index}.cache"),
        }

    def _server(self, options: dict[str, str]) -> Server:
        return ClockedRedis(options) if self.plan.clocks else LocalRedis(options=options)
