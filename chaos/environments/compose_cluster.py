"""The site of docker-compose.yml: its shards, ZooKeeper servers and monitors, and our processes.

The processes run on this host and come to each shard and ZooKeeper server by a proxy of their own,
so that links fail as in the local environment; servers fail as containers do: killed, paused,
unplugged. Whoever changes the topology does so on the site's host for operators.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from chaos.environments.base import EnvironmentFailed, Need, Plan
from chaos.environments.cluster import Cluster
from chaos.environments.compose import (
    NEW_SHARD,
    OPERATOR,
    SHARDS,
    ZOOKEEPERS,
    ComposeSite,
    missing_engine,
    missing_images,
)
from chaos.environments.containers import (
    ContainerEnsemble,
    ContainerOperator,
    ContainerShard,
    ZooKeeperContainer,
)
from chaos.environments.operator import QUIET_S
from chaos.environments.processes import WorkerProcess
from chaos.environments.proxy import ProxyThread, TcpProxy

IMAGES: Final = ("REDIS_IMAGE", "ZOOKEEPER_IMAGE", "CLUSTER_LAYER_IMAGE")
NAME: Final = "chaos"  # of the cluster: its znode
PREFIX: Final = "chat"  # the one that the shards' users may use
LAYER: Final = "cluster-layer"  # the one that they are for

#: What a site in use has no need of: sessions can be counted; quick to start.
_SETTINGS: Final = {
    "CLUSTER_NAME": NAME,
    "MONITOR_QUIET_SECONDS": QUIET_S,
    "ZOOKEEPER_COMMANDS": "srvr,mntr,ruok,conf,cons,dump",
    "ZOOKEEPER_HEAP": "128m",
}
_HEALTHY_WITHIN_S = 180.0


class ComposeCluster(Cluster):
    """A site of its own for each run, which is gone afterwards; needs a Docker engine."""

    name = "compose"
    provides = frozenset(
        {
            Need.BLOCKS,
            Need.BYTES,
            Need.PROCESSES,
            Need.SERVERS,
            Need.CABLES,
            Need.ZOOKEEPER,
            Need.CHANGES,
        }
    )

    def __init__(self, plan: Plan, directory: Path) -> None:
        super().__init__(plan, directory)
        self.shards: list[ContainerShard] = []
        self.links: dict[tuple[int, int], TcpProxy] = {}

    @property
    def prefix(self) -> str:
        return PREFIX

    async def _set_up(self, opening: AsyncExitStack) -> None:
        await asyncio.to_thread(require_possible, self.plan)
        site = ComposeSite(_SETTINGS)
        # In a thread: whoever is impatient and interrupts again does not interrupt this.
        opening.push_async_callback(asyncio.to_thread, site.close)
        services = [*SHARDS, *[NEW_SHARD][: self.plan.spares]]
        await asyncio.to_thread(_bring_up, site, services)
        thread = ProxyThread()
        opening.callback(thread.close)
        for index, service in enumerate(services):
            shard = ContainerShard(index, site, service, self.directory)
            self.shards.append(shard)
            await asyncio.to_thread(shard.container.settle)
        await self._set_up_zookeeper(site, thread, opening)
        environment = {"SHARD_USER": "layer", "SHARD_PASSWORD": site.values["SHARD_PASSWORD"]}
        for index in range(self.plan.processes):
            self.processes.append(self._process(index, thread, environment, opening))

    async def _set_up_zookeeper(
        self, site: ComposeSite, thread: ProxyThread, opening: AsyncExitStack
    ) -> None:
        """The ensemble, and who changes what it holds."""
        servers = [ZooKeeperContainer(site, service) for service in ZOOKEEPERS]
        for server in servers:
            await asyncio.to_thread(server.settle)
        zookeeper = self._zookeeper = ContainerEnsemble(
            servers,
            thread,
            path=f"/cluster-layer/{NAME}",
            digest="{ZOOKEEPER_USER}:{ZOOKEEPER_PASSWORD}".format_map(site.values),
        )
        opening.callback(zookeeper.close)
        await asyncio.to_thread(zookeeper.adopt)
        operator = self._operator = ContainerOperator(site, zookeeper, self.directory)
        if self.plan.monitors:
            await operator.start_monitors(self.plan.monitors)

    def _process(
        self,
        index: int,
        thread: ProxyThread,
        environment: dict[str, str],
        opening: AsyncExitStack,
    ) -> WorkerProcess:
        # Not by a `redirect`: it would miss connections of threads, and the names are not known
        # on this host.
        addresses = {}
        for shard in self.shards:
            link = self.links[index, shard.index] = shard.container.link(thread)
            opening.callback(link.close)
            login = "{env:SHARD_USER}:{env:SHARD_PASSWORD}"
            addresses[shard.id] = f"redis://{login}@127.0.0.1:{link.port}/0"
        config = {
            "prefix": PREFIX,
            "topology": self.zookeeper.settings_of(index),
            "topology_cache": str(self.directory / f"p{index}.cache"),
            "addresses": addresses,
        }
        return WorkerProcess(
            index, self.plan, self.directory, config=config, environment=environment
        )


def require_possible(plan: Plan) -> None:
    """EnvironmentFailed, with the remedy: such a run cannot be done here."""
    if plan.shards != len(SHARDS):
        raise EnvironmentFailed(
            f"the environment compose has {len(SHARDS)} shards, not {plan.shards}: leave out "
            "--shards"
        )
    if plan.layer != LAYER:
        raise EnvironmentFailed(
            f"the shards of the environment compose allow what {LAYER} needs, not {plan.layer}: "
            "use --environment local"
        )
    if why := missing_engine():
        raise EnvironmentFailed(
            "the environment compose needs a Docker engine on this host, and Compose (on Debian: "
            f"apt-get install docker.io docker-compose): {why}"
        )
    if missing := missing_images(*IMAGES):
        raise EnvironmentFailed(
            f"the environment compose needs images that are not here ({', '.join(missing)}): pull "
            "them or, where no registry can be reached, run deploy/offline-images as root; "
            "deploy/image builds ours"
        )


def _bring_up(site: ComposeSite, shards: list[str]) -> None:
    site.up(*ZOOKEEPERS, *shards, OPERATOR, profile="more")
    site.wait_healthy(ZOOKEEPERS, _HEALTHY_WITHIN_S)
    site.operator("start-cluster")
