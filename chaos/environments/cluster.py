"""The part that all environments share: shards, links, processes, and who begins and ends them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from chaos.environments.base import PREFIX, EnvironmentFailed, Need, Plan
from chaos.environments.operator import Operator
from chaos.environments.processes import WorkerProcess
from chaos.environments.shards import OwnShard, Shard
from chaos.environments.zookeeper import ZooKeeperCluster
from chaos.history import Audit

CLUSTER_PREFIX: Final = "cluster-layer"  # of what all layers of a cluster have in common


class Cluster:
    """All shards, links and processes of one run; use as an asynchronous context manager.

    Subclasses fill `shards`, `processes`, `links` (by the indexes of process and shard) and, if
    there are any, `zookeeper` and `operator` in `_set_up`; what has to be closed they leave with
    the stack.
    """

    name: ClassVar[str]
    provides: frozenset[Need]
    is_shared: ClassVar[bool] = False  # others use the same shards for real

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.shards: Sequence[Shard] = ()
        self.processes: list[WorkerProcess] = []
        self.links: dict[tuple[int, int], Any] = {}
        self._zookeeper: ZooKeeperCluster | None = None
        self._operator: Operator | None = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await self._set_up(opening)
            for process in self.processes:
                opening.callback(process.kill)
                process.start()
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

    @property
    def zookeeper(self) -> ZooKeeperCluster:
        if self._zookeeper is None:
            raise EnvironmentFailed("this run has no ZooKeeper")
        return self._zookeeper

    @property
    def operator(self) -> Operator:
        if self._operator is None:
            raise EnvironmentFailed("nobody may change this topology")
        return self._operator

    @property
    def spare_shard(self) -> OwnShard:
        """One that is not in the first topology."""
        return self.own_shard(self.plan.shards)

    @property
    def prefix(self) -> str:
        """Of all keys that the processes write."""
        return PREFIX

    def own_shard(self, index: int) -> OwnShard:
        shard = self.shards[index]
        if not isinstance(shard, OwnShard):
            raise EnvironmentFailed(f"{shard.id} is not ours to kill")
        return shard

    async def audits(self) -> list[Audit]:
        clusters = () if self.is_shared else (CLUSTER_PREFIX,)
        return [await shard.audit(self.prefix, *clusters) for shard in self.shards]

    async def _set_up(self, opening: AsyncExitStack) -> None:
        """Make everything but the lives of the processes. ClusterError."""
        raise NotImplementedError
