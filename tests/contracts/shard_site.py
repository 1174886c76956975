"""Real shards behind proxies, for the contract of the port ``Cluster``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import redis
from redis.exceptions import ResponseError

from cluster_layer import ClusterChannelLayer, scripts
from cluster_layer.administration import Administration
from cluster_layer.controls import control
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import Keys, incarnation_of
from cluster_layer.scripts import Script
from tests.support.layers import topology_store
from tests.support.parts import NEVER_LATE_MS
from tests.support.proxy import TcpProxy
from topology.hashing import slot_of
from topology.model import Phase, Shard, Topology
from topology.planning import initial_topology

A, B = "a", "b"
PREFIX = "asgi"
EXPIRY_MS = 60_000


class ShardSite:
    """Two redis-servers, the real adapter, and one process with a receiver."""

    cluster: Administration

    def __init__(self, cluster: str) -> None:
        self._cluster_id = cluster
        self._stack = AsyncExitStack()
        self._servers: dict[str, RedisServer] = {}
        self._proxies: dict[str, TcpProxy] = {}
        self._clients: dict[str, Any] = {}

    async def open(self) -> ShardSite:
        enter = self._stack.enter_context
        for name in (A, B):
            self._servers[name] = server = enter(RedisServer())
            self._proxies[name] = enter(TcpProxy("127.0.0.1", server.port))
            self._clients[name] = client = redis.Redis.from_url(server.url, protocol=2)
            self._stack.callback(client.close)
        topology = initial_topology(self.shards(), cluster=self._cluster_id)
        layer = ClusterChannelLayer(topology=topology_store(topology), topology_cache=None)
        self._stack.push_async_callback(layer.close)
        receiver = asyncio.create_task(layer.receive(await layer.new_channel()))
        self._stack.push_async_callback(_cancelled, receiver)
        self.cluster = Administration(topology, timeout_s=2.0, connect_timeout_s=1.0)
        self._stack.push_async_callback(self.cluster.close)
        while not any(report.receives for report in (await self.cluster.processes()).values()):
            await asyncio.sleep(0.02)
        return self

    async def close(self) -> None:
        await self._stack.aclose()

    def shards(self) -> list[Shard]:
        return [Shard(name, self._proxies[name].url) for name in (A, B)]

    async def push(self, topology: Topology, channel: str, message: str) -> None:
        home = topology.shard_of(channel).id
        queue = self._keys(home, topology).queue(channel)
        self._write(home, topology, scripts.QUEUE_PUSH, [queue], 1000, EXPIRY_MS, message)

    async def pop(self, topology: Topology, channel: str) -> str | None:
        for home in _homes(topology, channel):
            queue = self._keys(home, topology).queue(channel)
            items = self._clients[home].eval(scripts.QUEUE_POP.text, 1, queue, 1)[2]
            if items:
                return str(items[0].partition(b":")[2].decode())
        return None

    async def store(self, topology: Topology, group: str, member: str) -> None:
        stored = control("stored", group, member, topology.epoch)
        for home in _homes(topology, group):
            keys = self._keys(home, topology)
            arguments = (keys.group(group), 0, member, EXPIRY_MS, stored)
            named = [keys.members(group), keys.seq, keys.log]
            self._write(home, topology, scripts.GROUP_STORE, named, *arguments)

    async def leave(self, topology: Topology, group: str, member: str) -> None:
        leave = control("leave", group, member, topology.epoch)
        for home in _homes(topology, group):
            keys = self._keys(home, topology)
            is_new = home != topology.shard_of(group).id
            copied = int(topology.phase is Phase.PREPARED and is_new)
            arguments = (member, EXPIRY_MS, keys.group(group), leave, copied)
            named = [keys.members(group), keys.seq, keys.log]
            self._write(home, topology, scripts.GROUP_LEAVE, named, *arguments)

    async def members(self, shard: str, group: str) -> set[str]:
        key = self._keys(shard, self.cluster.topology).members(group)
        stored = self._clients[shard].zrange(key, 0, -1, withscores=True)
        return {member.decode() for member, deadline in stored if deadline > 0}

    async def cut(self, shard: str) -> None:
        self._proxies[shard].refuse()
        self._proxies[shard].cut()

    async def heal(self, shard: str) -> None:
        """Return when the adapter has it again."""
        self._proxies[shard].heal()
        (found,) = [one for one in self.shards() if one.id == shard]
        async with asyncio.timeout(20):
            while await self.cluster.probe(found, 1.0) is not None:
                await asyncio.sleep(0.02)

    async def restart(self, shard: str) -> None:
        self._servers[shard].restart()
        await self.heal(shard)

    def _write(
        self, home: str, topology: Topology, script: Script, keys: list[bytes], *arguments: Any
    ) -> Any:
        epoch = self._keys(home, topology).cluster.epoch
        named = (epoch, *keys)
        try:
            return self._clients[home].eval(
                script.text, len(named), *named, NEVER_LATE_MS, topology.epoch, *arguments
            )
        except ResponseError as error:
            raise ShardUnavailable(home, str(error)) from error

    def _keys(self, shard: str, topology: Topology) -> Keys:
        info = self._clients[shard].info()
        life = incarnation_of(info["run_id"], info["master_replid"])
        return Keys(PREFIX, topology.cluster, life, 0)


def _homes(topology: Topology, name: str) -> list[str]:
    other = topology.other_home(slot_of(name))
    return [topology.shard_of(name).id, *([other.id] if other is not None else [])]


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
