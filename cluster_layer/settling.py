"""The duties of an epoch: what a process does at new homes before it says that it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

from cluster_layer.errors import ShardUnavailable
from cluster_layer.groups import Groups
from cluster_layer.links import Links
from cluster_layer.presence import Presence
from cluster_layer.readers import Readers
from cluster_layer.routing import Routes
from cluster_layer.tasks import Tasks
from topology.errors import ClusterError
from topology.model import Phase

SETTLE_AGAIN_S = (0.1, 1.0)  # first and longest pause while an epoch's duties can't be fulfilled


class Settling:
    """Tries until all duties are fulfilled, or a newer epoch brings others."""

    def __init__(
        self,
        links: Links,
        groups: Groups,
        readers: Readers,
        in_order: Callable[[str], Awaitable[None]],
        presence: Presence,
        inboxes: Collection[str],
        tasks: Tasks,
    ) -> None:
        """`inboxes`: the names of all that this process reads."""
        self._links = links
        self._groups = groups
        self._readers = readers
        self._in_order = in_order
        self._presence = presence
        self._inboxes = inboxes
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def begin(self, routes: Routes) -> None:
        """The process serves by these routes now."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._tasks.spawn(self._settle(routes))

    async def _settle(self, routes: Routes) -> None:
        """Fulfil the duties of an epoch, and tell the shards."""
        pause_s = SETTLE_AGAIN_S[0]
        while True:
            try:
                await self._groups.settle()
                await self._hear_out(routes)
            except ClusterError as error:
                self._presence.waiting_for = str(error)
            else:
                self._presence.waiting_for = None
                self._presence.settled = routes.epoch
            self._links.report()
            if self._presence.settled == routes.epoch:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, SETTLE_AGAIN_S[1])

    async def _hear_out(self, routes: Routes) -> None:
        """Have everything that was written to moving names by older routes. ClusterError: not yet.

        A change of memberships may have been told to the old home alone, and messages may be there.
        """
        if routes.topology.phase is Phase.STEADY:
            return
        for shard in {shard for name in self._names() for shard in _left_over(name, routes)}:
            if await self._links.to(shard).align() < routes.epoch:
                raise ShardUnavailable(shard, "it does not know the topology yet")
            if shard in self._readers.inboxes:
                await self._readers.inboxes[shard].read_to_end()
            await self._in_order(shard)

    def _names(self) -> Iterator[str]:
        yield from self._inboxes
        yield from self._groups.names()


def _left_over(name: str, routes: Routes) -> Sequence[str]:
    """The homes of a moving name where older routes may have written."""
    homes = routes.homes_of(name)
    if len(homes) == 1:
        return ()
    return homes[:1] if routes.topology.phase is Phase.PREPARED else homes[1:]
