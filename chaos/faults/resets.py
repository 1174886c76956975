"""Connections are reset again and again."""

import asyncio
from typing import Any

from chaos.faults.base import LinkFault

PAUSE_S = (0.02, 0.25)


class ResetStorm(LinkFault):
    """Every moment all connections of the links are reset; new ones are welcome."""

    name = "reset-storm"
    expects_unknown = True
    _storm: asyncio.Task[None]

    async def inject(self) -> None:
        self.effect = -self._measured()
        self._storm = asyncio.create_task(self._rage())

    async def heal(self) -> None:
        self._storm.cancel()
        await asyncio.gather(self._storm, return_exceptions=True)
        self.effect += self._measured()

    async def _rage(self) -> None:
        while True:
            for link in self.links:
                await asyncio.to_thread(link.cut)
            await asyncio.sleep(self.chance.uniform(*PAUSE_S))

    def struck(self, link: Any) -> int:
        count: int = link.connections_cut
        return count
