"""The readers of a process, shard by shard: a subscription, inboxes, queues.

They come and go with the shards of the topology, and with the names that have their home there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, KeysView
from functools import partial
from typing import Any, Protocol

from cluster_layer.buffers import Mailbox
from cluster_layer.errors import ShardUnavailable
from cluster_layer.inbox import Cursors, InboxOwner, InboxReader
from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.links import Link, Links
from cluster_layer.queues import QueueOwner, QueueReader
from cluster_layer.reader import Reader
from cluster_layer.sequencer import Sequencer
from cluster_layer.subscriber import Subscribed, Subscriber
from cluster_layer.tasks import Tasks


class ReaderOwner(Subscribed, InboxOwner, QueueOwner, Protocol):
    """Whoever takes what the readers read."""


class Readers:
    """Opens and closes readers; tells the sequencer which of its lanes are connected."""

    def __init__(
        self,
        owner: ReaderOwner,
        links: Links,
        lanes: Sequencer,
        cursors: Cursors,
        expiry_ms: int,
        tasks: Tasks,
    ) -> None:
        self.subscribers: dict[str, Subscriber] = {}
        self.inboxes: dict[str, InboxReader] = {}
        self.queues: dict[str, QueueReader] = {}
        self.inboxes_on: defaultdict[str, set[str]] = defaultdict(set)  # shard -> names
        self._owner = owner
        self._links = links
        self._lanes = lanes
        self._cursors = cursors
        self._expiry_ms = expiry_ms
        self._tasks = tasks
        self._watched: dict[str, tuple[Link, Callable[[], None]]] = {}

    def __iter__(self) -> Iterator[Reader[Any]]:
        yield from self.inboxes.values()
        yield from self.queues.values()
        yield from self.subscribers.values()

    @property
    def shards(self) -> KeysView[str]:
        """Those of the topology that is served."""
        return self._watched.keys()

    # -- when the topology changes

    def follow_shards(self) -> None:
        """Be subscribed to every shard that there is now, and have no reader on any other."""
        links = {link.shard: link for link in self._links.all()}
        for shard, (link, _) in list(self._watched.items()):
            if links.get(shard) is not link:
                self._leave(shard)
        for shard in links.keys() - self._watched.keys():
            self._enter(links[shard])

    def follow_inboxes(self, inboxes: Iterable[str]) -> None:
        """Read these, at the homes that they have now, and no others."""
        for names in self.inboxes_on.values():
            names.clear()
        for inbox in inboxes:
            self.read_inbox(inbox)
        for shard in [shard for shard in self.inboxes if not self.inboxes_on[shard]]:
            self._tasks.own(self.inboxes.pop(shard).stop())
            self._lanes.close(Lane(shard, INBOX))

    def follow_queues(self) -> None:
        """Ask no shard for a normal channel any more that has no home there."""
        homes_of = self._links.routes.homes_of
        for shard, queue in self.queues.items():
            queue.keep(lambda name, shard=shard: shard in homes_of(name))  # type: ignore[misc]

    # -- what is read

    def read_inbox(self, inbox: str) -> None:
        """Read an inbox at all its homes."""
        for shard in self._links.routes.homes_of(inbox):
            self.inboxes_on[shard].add(inbox)
            reader = self.inboxes.get(shard)
            if reader is not None:
                if reader.look_again():
                    self._lanes.widen(Lane(shard, INBOX))
                continue
            link = self._links.to(shard)
            self._lanes.expect(Lane(shard, INBOX))
            self.inboxes[shard] = InboxReader(link, self._cursors, self._owner, self._expiry_ms)
            if link.connection is not None:
                self._link_changed(link)

    def want(self, box: Mailbox) -> None:
        """A receiver waits at the mailbox of a normal channel."""
        for shard in self._links.routes.homes_of(box.name):
            queue = self.queues.get(shard)
            if queue is None:
                queue = QueueReader(self._links.to(shard), self._owner, self._expiry_ms)
                self.queues[shard] = queue
            queue.want(box)

    def unwant(self, box: Mailbox) -> None:
        """Nobody waits there any more."""
        for shard in self._links.routes.homes_of(box.name):
            if shard in self.queues:
                self.queues[shard].unwant(box)

    async def come_to_the_end(self, lane: Lane) -> None:
        """Have everything handed over that was written to a lane before. ClusterError: it can't."""
        if lane.kind == GROUP:
            if lane.shard not in self.subscribers:
                raise ShardUnavailable(lane.shard, "the topology has no such shard any more")
            await self.subscribers[lane.shard].barrier()
        elif lane.shard in self.inboxes:
            await self.inboxes[lane.shard].read_to_end()

    def shard_time_ms(self, shard: str) -> float:
        return self._watched[shard][0].shard_time_ms() if shard in self._watched else 0.0

    def stop(self) -> list[asyncio.Task[None]]:
        """Read nothing more from now on; returns the tasks that are about to end."""
        for link, watcher in self._watched.values():
            if watcher in link.watchers:
                link.watchers.remove(watcher)
        return [reader.stop() for reader in list(self)]

    # -- internals

    def _enter(self, link: Link) -> None:
        """A shard has come into the topology."""
        watcher = partial(self._link_changed, link)
        link.watchers.append(watcher)
        self._watched[link.shard] = (link, watcher)
        self.subscribers[link.shard] = Subscriber(link, self._owner)

    def _leave(self, shard: str) -> None:
        """A shard is none any more, or is to be reached elsewhere now."""
        link, watcher = self._watched.pop(shard)
        if watcher in link.watchers:
            link.watchers.remove(watcher)
        for readers in (self.subscribers, self.inboxes, self.queues):
            reader = readers.pop(shard, None)
            if reader is not None:
                self._tasks.own(reader.stop())
        self._owner.on_subscription(shard, None)
        self._lanes.close(Lane(shard, INBOX))

    def _link_changed(self, link: Link) -> None:
        if link.shard not in self.inboxes:
            return
        lane = Lane(link.shard, INBOX)
        if link.connection is None:
            self._lanes.close(lane)
        else:
            self._lanes.open(lane, link.keys.incarnation)
