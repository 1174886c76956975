"""The topology changes as planned, under load, and changes back: nothing is lost by it (P5)."""

from __future__ import annotations

from typing import ClassVar

from chaos.environments.base import Need
from chaos.environments.operator import Operator
from chaos.faults.base import Fault
from topology.model import Topology

HEAVY, ORDINARY = "3", "1"  # weights


class PlannedChange(Fault):
    """A change at the beginning, and the way back at the end; nobody else changes meanwhile."""

    needs = frozenset({Need.CHANGES})
    in_storms = False  # storms with changes name them
    invariant = "P5"
    spares = 1
    duration_s: ClassVar[tuple[float, float] | None] = (4.0, 6.0)

    @property
    def shards(self) -> tuple[str, ...]:
        return ()

    @property
    def operator(self) -> Operator:
        return self.cluster.operator

    @property
    def new_shard(self) -> str:
        """As `cluster-layer` wants to be told of it."""
        spare = self.cluster.spare_shard
        return f"{spare.id}={spare.url}"

    async def inject(self) -> None:
        await self.operator.busy.acquire()
        try:
            await self._tidy()
            before = await self.operator.topology()
            await self.forth()
            self.effect += moved(before, await self.operator.topology())
        except BaseException:
            self.operator.busy.release()
            raise

    async def heal(self) -> None:
        try:
            before = await self.operator.topology()
            await self.back()
            self.effect += moved(before, await self.operator.topology())
        finally:
            self.operator.busy.release()

    async def _tidy(self) -> None:
        """In a mixture an earlier change may not have come to its end, or not back."""
        if (await self.operator.topology()).change is not None:
            await self.operator.take_over("resume")
        spare = self.cluster.spare_shard.id
        if any(shard.id == spare for shard in (await self.operator.topology()).shards):
            await self.operator.change("remove", spare)

    async def forth(self) -> None:
        """The change. CommandFailed."""
        raise NotImplementedError

    async def back(self) -> None:
        """Back to what was before. CommandFailed."""
        raise NotImplementedError


def moved(before: Topology, after: Topology) -> int:
    """How many slots have another home."""
    pairs = zip(before.table.owners, after.table.owners, strict=True)
    return sum(here != there for here, there in pairs)


class ShardAdded(PlannedChange):
    """A shard is added, and removed again."""

    name = "shard-add"

    async def forth(self) -> None:
        await self.operator.change("add", self.new_shard)

    async def back(self) -> None:
        await self.operator.change("remove", self.cluster.spare_shard.id)


class ShardRemoved(PlannedChange):
    """A shard is removed, and added again: what was left on it must not come back."""

    name = "shard-remove"

    async def forth(self) -> None:
        await self.operator.change("remove", self.shard.id)

    async def back(self) -> None:
        await self.operator.change("add", f"{self.shard.id}={self.shard.url}")


class ShardDrained(PlannedChange):
    """A shard gives all that it has to the others, and gets its share again."""

    name = "shard-drain"

    async def forth(self) -> None:
        await self.operator.change("drain", self.shard.id)

    async def back(self) -> None:
        await self.operator.change("mark", "up", self.shard.id)


class ShardWeighed(PlannedChange):
    """A shard gets three times its share, and then its share again."""

    name = "shard-weight"

    async def forth(self) -> None:
        await self.operator.change("weight", self.shard.id, HEAVY)

    async def back(self) -> None:
        await self.operator.change("weight", self.shard.id, ORDINARY)
