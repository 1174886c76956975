"""A planned change with trouble of its operator or of ZooKeeper: it still loses nothing (P5)."""

from __future__ import annotations

import asyncio

from chaos.environments.base import Need
from chaos.environments.control import CommandFailed
from chaos.faults.changes import PlannedChange
from chaos.faults.zookeeper import GARBAGE
from topology.codec import encode
from topology.model import Topology

KILLED_AFTER_S = (0.0, 0.6)  # a change of a whole shard takes about so long
GARBAGE_FOR_S = 1.0


class OperatorKilled(PlannedChange):
    """`cluster-layer` is killed amid a change, -9; another one goes on with it, or undoes it."""

    name = "operator-kill"

    async def forth(self) -> None:
        command = await asyncio.to_thread(self.operator.begin_change, "add", self.new_shard)
        under_way = await self.operator.until_changing(command)
        await asyncio.sleep(self.chance.uniform(*KILLED_AFTER_S))
        await asyncio.to_thread(command.kill)
        if not under_way or (await self.operator.topology()).change is None:
            return  # it was too fast for us
        self.effect += 1
        await self.operator.take_over(self.chance.choice(("resume", "abort")))

    async def back(self) -> None:
        spare = self.cluster.spare_shard.id
        if any(shard.id == spare for shard in (await self.operator.topology()).shards):
            await self.operator.change("remove", spare)


class ChangeUnseen(PlannedChange):
    """One process has no ZooKeeper from before a change until after it."""

    name = "change-unseen"
    needs = PlannedChange.needs | {Need.ZOOKEEPER}

    async def forth(self) -> None:
        for link in self.cluster.zookeeper.links_of(self.process.index):
            await asyncio.to_thread(link.blackhole, "both", swallow=True)
        await self.operator.change("add", self.new_shard)

    async def back(self) -> None:
        try:
            await self.operator.change("remove", self.cluster.spare_shard.id)
        finally:
            for link in self.cluster.zookeeper.links_of(self.process.index):
                await asyncio.to_thread(link.heal)


class _Overwritten(PlannedChange):
    """Amid a change something else is where the topology was; then the newest one, again."""

    needs = PlannedChange.needs | {Need.ZOOKEEPER}

    async def forth(self) -> None:
        zookeeper = self.cluster.zookeeper
        before = await asyncio.to_thread(zookeeper.newest)
        command = await asyncio.to_thread(self.operator.begin_change, "add", self.new_shard)
        if await self.operator.until_changing(command):
            await asyncio.to_thread(zookeeper.overwrite, self.wrong(before))
            await asyncio.sleep(GARBAGE_FOR_S)
            await asyncio.to_thread(zookeeper.advance)
            self.effect += 1
        try:
            await self.operator.ended(command, "shard add")
        except CommandFailed:  # whoever drives a change may give up; anybody can go on with it
            await self.operator.take_over("resume")

    async def back(self) -> None:
        await self.operator.change("remove", self.cluster.spare_shard.id)

    def wrong(self, before: Topology) -> bytes:
        """`before` is the topology of before the change."""
        raise NotImplementedError


class ChangeGarbled(_Overwritten):
    """Amid a change the znode holds bytes that are no topology, for a second."""

    name = "change-garbage"

    def wrong(self, before: Topology) -> bytes:
        del before
        return GARBAGE


class ChangeRolledBack(_Overwritten):
    """Amid a change the znode holds what was before it, for a second."""

    name = "change-rollback"

    def wrong(self, before: Topology) -> bytes:
        return encode(before)
