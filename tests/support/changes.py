"""Planned changes of a topology, driven as an operator's machine drives them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from cluster_layer.administration import open_cluster
from topology.coordinator import Coordinator
from topology.decisions import Decisions
from topology.model import Operator, Shard, ShardState, Topology
from topology.planning import plan
from topology.ports import OperatorStore
from topology.progress import Outcome
from topology.stores import open_store

OPERATOR = Operator("tester", "localhost", 1)


class Changes:
    """What an operator does to one store."""

    def __init__(self, store: OperatorStore) -> None:
        self.store = store
        self.decisions = Decisions(store, OPERATOR)

    async def to(self, shards: Iterable[Shard], *, step: int = 1024) -> Topology:
        """Change to these shards, and return when that has ended."""
        before = await self.decisions.read()
        await self.decisions.begin(plan(before, shards, "a test"), step=step)
        return await self.drive()

    async def drive(self) -> Topology:
        """Drive the change under way to its end."""
        async with open_cluster(await self.decisions.read()) as cluster:
            progress = [look async for look in Coordinator(self.decisions, cluster).drive()]
        assert progress[-1].outcome is Outcome.FINISHED, progress[-1]
        return await self.decisions.read()

    async def mark_down(self, *shards: str) -> Topology:
        """They are lost; those that are left learn it at once."""
        async with open_cluster(await self.decisions.read()) as cluster:
            after = await self.decisions.mark_down(cluster, shards, "a test")
            up = [shard.id for shard in after.shards if shard.state is not ShardState.DOWN]
            assert await cluster.install(after, up) == {}
        return after


@asynccontextmanager
async def changes_of(url: str) -> AsyncIterator[Changes]:
    store = open_store(url)
    try:
        yield Changes(store)
    finally:
        store.close()
