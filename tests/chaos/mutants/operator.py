"""`cluster-layer` with a defect: ``... mutants.operator NAME ARGUMENTS...``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cluster_layer.administration import Administration
from cluster_layer.cli.main import main
from tests.chaos.mutants.installing import installer, swap

INSTALL: dict[str, Callable[[], None]] = {}
mutant = installer(INSTALL)


@mutant
def copy_on_change() -> None:
    ended = Administration._end_batch

    async def given_back(self: Any, topology: Any, batch: Any, **_how: bool) -> Any:
        return await ended(self, topology, batch, back=True)

    async def copied(self: Any, topology: Any, shard: str, found: Any) -> Any:
        target = self._link(topology.shard_of(found.name).id)
        await target.ready()
        home = f"{target.shard} {target.keys.incarnation} copied"
        batch = await self._take(topology, shard, found, home)
        return await self._settle_batch(topology, batch)

    swap(Administration, "_end_batch", given_back)
    swap(Administration, "_move_queue", copied)


if __name__ == "__main__":
    INSTALL[sys.argv.pop(1)]()
    main(prog_name="cluster-layer")
