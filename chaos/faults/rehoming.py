"""A shard is lost for good, as it seems: monitors give its names to the others, within 5 s."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.checkers.base import HEAL_S
from chaos.environments.base import Need
from chaos.environments.shards import wipe
from chaos.environments.zookeeper import SESSION_S
from chaos.faults.base import Fault
from chaos.history import Window
from topology.model import ShardState

BACK_WITHIN_S = 30.0


class ShardLost(Fault):
    """kill -9 for so long that its names get other homes; then it comes back, blank."""

    name = "shard-lost"
    needs = frozenset({Need.SERVERS, Need.CHANGES})
    monitors = 2
    in_storms = False
    duration_s = (7.0, 8.0)
    rehomed_within_s = HEAL_S

    async def inject(self) -> None:
        await asyncio.to_thread(self.own_shard.server.kill)

    async def heal(self) -> None:
        """Monitors take it back when it has been well for some time, a planned change."""
        if self.shard.id in await self._down():
            self.effect += 1
        wipe(self.own_shard.server)
        await asyncio.to_thread(self.own_shard.server.start)
        await self.cluster.operator.start_monitors(self.monitors)

    def windows(self, began_s: float, ended_s: float) -> Sequence[Window]:
        """While processes come to the new homes, any shard can lose what is on its way."""
        (window,) = super().windows(began_s, ended_s)
        until_s = min(ended_s, began_s + self.rehomed_within_s)
        coming = Window(f"{self.name} (new homes)", began_s, until_s, effect=self.effect)
        return (window, coming)

    async def _down(self) -> set[str]:
        topology = await self.cluster.operator.topology()
        return {shard.id for shard in topology.shards if shard.state is ShardState.DOWN}


class MonitorKilled(ShardLost):
    """The same, and the monitor that leads is killed as soon as the shard is: another one leads."""

    name = "monitor-kill"
    duration_s = (9.0, 10.0)
    rehomed_within_s = HEAL_S + 2 * SESSION_S  # so long the dead one's lock may last

    async def inject(self) -> None:
        leader = await self.cluster.operator.leader()
        await super().inject()
        if leader is not None:
            await asyncio.to_thread(leader.kill)
