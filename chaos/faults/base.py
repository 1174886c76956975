"""What a fault is: it strikes, and it brings its own cure."""

from __future__ import annotations

import asyncio
from random import Random
from typing import ClassVar

from chaos.environments.local import LocalCluster, LocalProcess, LocalShard
from chaos.environments.proxy import TcpProxy
from chaos.generators import Strike


class Fault:
    """One fault on a running cluster: `inject()`, then `heal()`.

    `effect` counts how often it provably struck, and is final after `heal()`. `shards` and
    `processes` say whom it can hurt; empty means all.
    """

    name: ClassVar[str]
    expects_unknown: ClassVar[bool] = False  # it must lead to outcomes that nobody can know
    needs_replica: ClassVar[bool] = False

    def __init__(self, cluster: LocalCluster, strike: Strike, chance: Random) -> None:
        self.cluster = cluster
        self.strike = strike
        self.chance = chance
        self.effect = 0

    @property
    def shard(self) -> LocalShard:
        return self.cluster.shards[self.strike.shard]

    @property
    def process(self) -> LocalProcess:
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


class LinkFault(Fault):
    """A fault of the links between one process, or all, and one shard."""

    @property
    def processes(self) -> tuple[str, ...]:
        return () if self.strike.everywhere else (self.process.name,)

    @property
    def links(self) -> list[TcpProxy]:
        if self.strike.everywhere:
            return self.cluster.links_to(self.shard)
        return [self.process.links[self.shard.id]]

    async def inject(self) -> None:
        self.effect = -self._measured()
        await asyncio.to_thread(self._strike)

    async def heal(self) -> None:
        await asyncio.to_thread(self._heal)
        self.effect += self._measured()

    def strike_link(self, link: TcpProxy) -> None:
        raise NotImplementedError

    def struck(self, link: TcpProxy) -> int:
        """The proxy's counter that shows that the fault has struck."""
        return link.reads_disturbed

    def _strike(self) -> None:
        for link in self.links:
            self.strike_link(link)

    def _heal(self) -> None:
        for link in self.links:
            link.heal()

    def _measured(self) -> int:
        return sum(self.struck(link) for link in self.links)
