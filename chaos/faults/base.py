"""What a fault is: it strikes, and it brings its own cure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from chaos.environments.base import Need
from chaos.environments.cluster import Cluster
from chaos.environments.processes import WorkerProcess
from chaos.environments.shards import OwnShard, Shard
from chaos.generators import Strike
from chaos.history import Stall, Window


class Fault:
    """One fault on a running cluster: `inject()`, then `heal()`.

    `effect` counts how often it provably struck, and is final after `heal()`. `shards` and
    `processes` say whom it can hurt; empty means all. `stalls` are processes that it stopped.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    expects_unknown: ClassVar[bool] = False  # it must lead to outcomes that nobody can know
    needs_replica: ClassVar[bool] = False
    needs_aof: ClassVar[bool] = False  # every write to one shard waits for the disk
    zookeeper_servers: ClassVar[int] = 1  # if it needs ZooKeeper at all
    spares: ClassVar[int] = 0  # shards that are not in the topology at first
    monitors: ClassVar[int] = 0
    rehomed_within_s: ClassVar[float] = 0.0  # its shards' names have other homes by then; 0: no
    in_storms: ClassVar[bool] = True
    duration_s: ClassVar[tuple[float, float] | None] = None  # None: that of the scenario
    invariant: ClassVar[str] = ""  # the promise by which it changes nothing
    disturbs_others: ClassVar[bool] = False  # also those who use the same shards for real

    def __init__(self, cluster: Cluster, strike: Strike, chance: Random) -> None:
        self.cluster = cluster
        self.strike = strike
        self.chance = chance
        self.effect = 0
        self.stalls: list[Stall] = []

    @property
    def shard(self) -> Shard:
        return self.cluster.shards[self.strike.shard]

    @property
    def own_shard(self) -> OwnShard:
        """The same, whose server is ours."""
        return self.cluster.own_shard(self.shard.index)

    @property
    def process(self) -> WorkerProcess:
        return self.cluster.processes[self.strike.process]

    @property
    def shards(self) -> tuple[str, ...]:
        return (self.shard.id,)

    @property
    def processes(self) -> tuple[str, ...]:
        return ()

    async def inject(self) -> None:
        raise NotImplementedError

    async def heal(self) -> None:
        raise NotImplementedError

    def windows(self, began_s: float, ended_s: float) -> Sequence[Window]:
        """What the history is told, after `heal()`: where and when it was in force."""
        window = Window(
            self.name,
            began_s,
            ended_s,
            self.shards,
            self.processes,
            self.effect,
            self.invariant,
            self.rehomed_within_s,
        )
        return (window,)


class LinkFault(Fault):
    """A fault of the links between one process, or all, and one shard."""

    needs = frozenset({Need.BYTES})

    @property
    def processes(self) -> tuple[str, ...]:
        return () if self.strike.everywhere else (self.process.name,)

    @property
    def links(self) -> Sequence[Any]:
        """Those that are struck."""
        processes = self.cluster.processes if self.strike.everywhere else [self.process]
        return [self.cluster.links[process.index, self.shard.index] for process in processes]

    async def inject(self) -> None:
        self.effect = -self._measured()
        await asyncio.to_thread(self._strike)

    async def heal(self) -> None:
        await asyncio.to_thread(self._heal)
        self.effect += self._measured()

    def strike_link(self, link: Any) -> None:
        raise NotImplementedError

    def struck(self, link: Any) -> int:
        """The link's counter that shows that the fault has struck."""
        disturbed: int = link.reads_disturbed
        return disturbed

    def _strike(self) -> None:
        for link in self.links:
            self.strike_link(link)

    def _heal(self) -> None:
        for link in self.links:
            link.heal()

    def _measured(self) -> int:
        return sum(self.struck(link) for link in self.links)
