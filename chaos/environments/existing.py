"""A cluster that runs already: our processes and links, somebody's shards.

Processes of our own join it under a prefix that nobody else has, each link through a proxy. What
strikes them strikes nobody else. Faults of the shards themselves need an administrator's access,
and are done only when they are asked for by name.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from chaos.environments import redirect
from chaos.environments.base import EnvironmentFailed, Need, Plan
from chaos.environments.cluster import Cluster
from chaos.environments.control import CommandFailed, Reply
from chaos.environments.processes import WorkerProcess
from chaos.environments.proxy import ProxyThread, TcpProxy
from chaos.environments.redirect import Address
from chaos.environments.shards import Shard
from cluster_layer.endpoints import Endpoint
from topology.errors import ClusterError
from topology.model import Topology
from topology.stores import open_store

TCP_SCHEMES: Final = ("redis", "rediss")
REDIS_PORT: Final = 6379

_TIMEOUT_S = 10.0


class ExistingShard(Shard):
    """Somebody's shard, with the rights that its URL gives."""

    def __init__(self, index: int, shard_id: str, url: str) -> None:
        super().__init__(index, shard_id, url)
        self._endpoint = Endpoint.from_url(url)

    async def console(self) -> ExistingConsole:
        connection = self._endpoint.new_connection(_TIMEOUT_S)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            raise CommandFailed(f"no connection to {self.id}: {error}") from error
        return ExistingConsole(self.id, connection)


class ExistingConsole:
    """A connection of redis-py's: it may need TLS and a password."""

    def __init__(self, shard: str, connection: AbstractConnection) -> None:
        self._shard = shard
        self._connection = connection

    async def ask(self, *command: str) -> Reply:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._connection.send_command(*command)
                reply: Reply = await self._connection.read_response()
        except (RedisError, OSError, TimeoutError) as error:
            raise CommandFailed(f"{command[0]} on {self._shard}: {error}") from error
        return reply

    async def close(self) -> None:
        await self._connection.disconnect()


class ExistingCluster(Cluster):
    """Processes of our own on the shards of a topology that is in a store."""

    name = "existing"
    is_shared = True

    def __init__(self, plan: Plan, directory: Path, *, url: str, topology: Topology) -> None:
        super().__init__(plan, directory)
        self._url = url
        self._topology = topology
        self._prefix = f"chaos-{secrets.token_hex(4)}"
        reached = [urlsplit(shard.url) for shard in topology.shards]
        self._addresses: list[Address] = [
            (parts.hostname, parts.port or REDIS_PORT)
            for parts in reached
            if parts.scheme in TCP_SCHEMES and parts.hostname
        ]
        links = {Need.BLOCKS, Need.BYTES} if len(self._addresses) == len(reached) else set()
        self.provides = frozenset({Need.PROCESSES, Need.COMMANDS, *links})

    @property
    def prefix(self) -> str:
        return self._prefix

    async def _set_up(self, opening: AsyncExitStack) -> None:
        thread = ProxyThread()
        opening.callback(thread.close)
        self.shards = [
            ExistingShard(index, shard.id, shard.url)
            for index, shard in enumerate(self._topology.shards)
        ]
        opening.push_async_callback(self._clean)
        for index in range(self.plan.processes):
            targets: dict[Address, Address] = {}
            for shard, address in enumerate(self._addresses):
                link = TcpProxy(*address, thread=thread)
                opening.callback(link.close)
                self.links[index, shard] = link
                targets[address] = ("127.0.0.1", link.port)
            redirects = self.directory / f"p{index}.redirect"
            redirect.write(redirects, targets)
            config = {
                "prefix": self._prefix,
                "topology": self._url,
                "topology_cache": str(self.directory / f"p{index}.cache"),
            }
            self.processes.append(
                WorkerProcess(index, self.plan, self.directory, config=config, redirect=redirects)
            )

    async def _clean(self) -> None:
        """Leave nothing behind; what cannot be removed has a TTL."""
        for shard in self.shards:
            try:
                await shard.remove(self._prefix)
            except CommandFailed:
                continue


def read_topology(url: str) -> Topology:
    """The topology that is there. EnvironmentFailed, with the reason."""
    try:
        store = open_store(url)
        try:
            topology = store.read()
        finally:
            store.close()
    except ClusterError as error:
        raise EnvironmentFailed(f"--topology {error}") from error
    if topology is None:
        raise EnvironmentFailed("--topology: there is none; `cluster-layer init` makes one")
    return topology
