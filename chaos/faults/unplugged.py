"""A shard's cable is pulled."""

from __future__ import annotations

import asyncio

from chaos.environments.base import Need
from chaos.environments.containers import ContainerShard, ShardContainer
from chaos.environments.control import CommandFailed
from chaos.faults.base import Fault


class Unplugged(Fault):
    """Packets to and from a shard are lost, of everybody, and no connection is told."""

    name = "unplugged"
    needs = frozenset({Need.CABLES})
    expects_unknown = True

    async def inject(self) -> None:
        # Nobody starts it meanwhile: it would come up without a network.
        await self.own_shard.surgery.acquire()
        try:
            container = self._container
            await asyncio.to_thread(container.unplug)
            if not await asyncio.to_thread(container.serves):
                self.effect += 1
        except BaseException:
            self.own_shard.surgery.release()
            raise

    async def heal(self) -> None:
        try:
            await asyncio.to_thread(self._container.plug_in)
        finally:
            self.own_shard.surgery.release()

    @property
    def _container(self) -> ShardContainer:
        shard = self.shard
        if not isinstance(shard, ContainerShard):
            raise CommandFailed(f"{shard.id} cannot be unplugged")
        return shard.container
