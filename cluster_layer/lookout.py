"""Looking at all shards, and changing nothing there: they get no script, topology or report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

from cluster_layer.connection import Connection
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ShardUnavailable
from cluster_layer.inspection import reason_of, status_of
from cluster_layer.keys import ClusterKeys
from cluster_layer.keyspace import leftovers_on
from cluster_layer.overview import Permissions
from cluster_layer.permissions import permissions_of
from cluster_layer.reports import Sightings, by_process, sightings_on
from cluster_layer.routing import endpoint_of
from topology.errors import ClusterError
from topology.hashing import SLOTS
from topology.model import Shard, ShardState, Topology
from topology.ports import Leftovers, ProcessReport, ShardStatus

T = TypeVar("T")

AT_ONCE = 64  # shards that are asked at the same time


class Lookout:
    """Plain connections to shards, kept from one look to the next; belongs to one loop."""

    def __init__(
        self,
        *,
        timeout_s: float = 2.0,
        connect_timeout_s: float = 1.0,
        endpoint_for: Callable[[Shard], Endpoint] = endpoint_of,
    ) -> None:
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._endpoint_for = cache(endpoint_for)
        self._connections: dict[Shard, Connection] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def statuses(self, topology: Topology) -> dict[str, ShardStatus]:
        """Shard id -> what it says of itself, also of those that are down. Never raises."""

        async def status(shard: Shard) -> ShardStatus:
            try:
                db = self._endpoint_for(shard).db
                connection = await self._connection(shard)
                return await status_of(shard.id, connection, topology.cluster, db)
            except ClusterError as error:
                return ShardStatus(shard.id, reason_of(error))

        found = await self._of_each(topology.shards, status)
        return {shard: status for shard, status in found.items() if status is not None}

    async def processes(
        self, topology: Topology, statuses: Mapping[str, ShardStatus]
    ) -> dict[str, ProcessReport]:
        """Process id -> report, of all processes of which a shard in use knows."""

        async def sightings(shard: Shard) -> Sightings:
            keys, _ = self._keys(topology, shard, statuses)
            return await sightings_on(await self._connection(shard), keys)

        found = await self._of_each(_usable(topology, statuses), sightings)
        return by_process(seen for seen in found.values() if seen)

    async def permissions(
        self,
        topology: Topology,
        statuses: Mapping[str, ShardStatus],
        prefixes: Iterable[str],
    ) -> dict[str, Permissions | None]:
        """Shard id -> what it refuses its user; None: that can't be found out."""
        known = tuple(prefixes)

        async def permissions(shard: Shard) -> Permissions | None:
            keys, incarnation = self._keys(topology, shard, statuses)
            return await permissions_of(await self._connection(shard), keys, incarnation, known)

        return await self._of_each(_usable(topology, statuses), permissions)

    async def leftovers(
        self, topology: Topology, statuses: Mapping[str, ShardStatus]
    ) -> dict[str, Leftovers | None]:
        """Shard id -> what it has of slots that it does not serve; None: it can't be asked."""
        homes: dict[str, set[int]] = {shard.id: set() for shard in topology.shards}
        for slot in range(SLOTS):
            homes[topology.owner_of(slot).id].add(slot)
        for slot in topology.moving:
            other = topology.other_home(slot)
            if other is not None:
                homes[other.id].add(slot)

        async def leftovers(shard: Shard) -> Leftovers:
            _, incarnation = self._keys(topology, shard, statuses)
            strange = set(range(SLOTS)) - homes[shard.id]
            return await leftovers_on(await self._connection(shard), incarnation, strange)

        return await self._of_each(_usable(topology, statuses), leftovers)

    async def close(self) -> None:
        """Close all connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    # -- internals

    async def _connection(self, shard: Shard) -> Connection:
        connection = self._connections.get(shard)
        if connection is None or connection.lost is not None:
            self._connections[shard] = connection = await self._connected(shard)
        return connection

    async def _connected(self, shard: Shard) -> Connection:
        return await Connection.connect(
            self._endpoint_for(shard),
            shard.id,
            connect_timeout_s=self._connect_timeout_s,
            timeout_s=self._timeout_s,
        )

    def _keys(
        self, topology: Topology, shard: Shard, statuses: Mapping[str, ShardStatus]
    ) -> tuple[ClusterKeys, str]:
        incarnation = statuses[shard.id].incarnation
        if incarnation is None:
            raise ShardUnavailable(shard.id, "it does not tell its run id")
        db = self._endpoint_for(shard).db
        return ClusterKeys(topology.cluster, incarnation, db), incarnation

    async def _of_each(
        self, shards: Iterable[Shard], ask: Callable[[Shard], Awaitable[T]]
    ) -> dict[str, T | None]:
        async def in_turn(shard: Shard) -> T | None:
            async with self._turns:
                try:
                    return await ask(shard)
                except ClusterError:
                    return None

        asked = list(shards)
        answers = await asyncio.gather(*map(in_turn, asked))
        return {shard.id: answer for shard, answer in zip(asked, answers, strict=True)}


def _usable(topology: Topology, statuses: Mapping[str, ShardStatus]) -> list[Shard]:
    """The shards that are in use, and answer."""
    return [
        shard
        for shard in topology.shards
        if shard.state is not ShardState.DOWN
        and (status := statuses.get(shard.id)) is not None
        and status.reachable
    ]


@asynccontextmanager
async def open_lookout(**options: Any) -> AsyncIterator[Lookout]:
    """A lookout whose connections are closed at the end; see `Lookout` for the options."""
    lookout = Lookout(**options)
    try:
        yield lookout
    finally:
        await lookout.close()
