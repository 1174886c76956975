"""The receivers of a process: who waits at which mailbox, and who gets what is in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cluster_layer.buffers import Loss, Mailbox, Mailboxes, Parcel, SharedMailbox, wake_one
from cluster_layer.lanes import INBOX, Lane
from cluster_layer.links import Links
from cluster_layer.names import inbox_name, is_process_specific
from cluster_layer.queues import put_back
from cluster_layer.readers import Readers
from cluster_layer.tasks import Tasks
from cluster_layer.waiting import Sleeper, Wakeups
from topology.errors import ClusterError


class NodeClosed(Exception):
    """This node has stopped; whoever waits for a message has to wait at the next one."""


class Receivers:
    """Names that are received from are read from then on. Belongs to one loop."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        inboxes: set[str],
        links: Links,
        readers: Readers,
        expiry_ms: int,
        lose: Callable[[Loss, int], None],
        tasks: Tasks,
    ) -> None:
        """`inboxes`: the names of all that are read; new ones are entered there."""
        self.closed = False
        self.mailboxes = mailboxes
        self._inboxes = inboxes
        self._links = links
        self._readers = readers
        self._expiry_ms = expiry_ms
        self._lose = lose
        self._tasks = tasks
        self._wakeups = Wakeups(asyncio.get_running_loop())

    def watch_inbox(self, inbox: str) -> None:
        """Read the inbox of this name, which is a channel name up to and including ``!``."""
        if inbox not in self._inboxes:
            self._inboxes.add(inbox)
            self._readers.read_inbox(inbox)

    async def receive(self, name: str) -> tuple[str, Parcel]:
        """The next message of a channel, or of all channels of a name that ends with ``!``.

        Cancelling loses nothing: a message leaves its mailbox in the step that returns it.
        """
        if name.endswith("!"):
            self.watch_inbox(name)
            return await self._receive_any(name)
        self.watch(name)
        while not self.closed:
            parcel = self.take(name)
            if parcel is not None:
                return name, parcel
            await self.message_for(name)
        raise NodeClosed

    def watch(self, name: str) -> Mailbox:
        """Begin to take in what comes for a channel; a normal one needs a receiver, too."""
        box = self.mailboxes.open(name)
        if not box.watched:
            if is_process_specific(name):
                self.watch_inbox(inbox_name(name))
            box.watched = True
        return box

    def when_asked(self, name: str, callback: Callable[[], None]) -> bool:
        """Call it as often as a home of a normal channel with a receiver has been asked once more.

        False: never, the homes are away.
        """
        homes = self._links.routes.homes_of(name)
        queues = self._readers.queues
        asked = [queues[shard] for shard in homes if shard in queues and queues[shard].can_ask]
        for queue in asked:
            queue.when_asked(callback)
        return bool(asked)

    async def read_to_end(self, name: str) -> None:
        """Take in what is in the inbox of a process-specific channel. ClusterError: it can't be."""
        for shard in self._links.routes.homes_of(inbox_name(name)):
            await self._readers.come_to_the_end(Lane(shard, INBOX))

    def take(self, name: str) -> Parcel | None:
        """The next message of a channel, if there is one."""
        box = self.mailboxes.find(name)
        if box is None or not box.parcels:
            return None
        box.abandoned_at = None
        return self.mailboxes.take(box, time.monotonic())

    def message_for(self, name: str) -> Sleeper[Mailbox]:
        """Await it: there may be a message for this channel then, or this node is closed."""
        box = self.mailboxes.open(name)
        box.abandoned_at = None
        sleeper = Sleeper(self._wakeups, box, self._cancelled)
        box.waiters.append(sleeper)
        if box.shared is None:
            self._readers.want(box)
        return sleeper

    def put_back(self, name: str, parcel: Parcel) -> None:
        """A message that `receive` returned has not reached its receiver, who is gone."""
        box = self.mailboxes.open(name)
        self.mailboxes.put_back(box, parcel)
        self._receiver_left(box)

    async def give_back(self, box: Mailbox) -> None:
        """Put popped messages back for which no receiver is left."""
        parcels = self.mailboxes.take_all(box)
        if not parcels:
            return
        try:
            await put_back(self._links, box.name, parcels, self._expiry_ms, time.monotonic())
        except ClusterError as error:
            if error.definite:  # still ours: whoever receives here next gets them
                for parcel in reversed(parcels):
                    self.mailboxes.put_back(self.mailboxes.open(box.name), parcel)
            else:
                self._lose(Loss.UNAVAILABLE, len(parcels))

    # -- internals

    async def _receive_any(self, inbox: str) -> tuple[str, Parcel]:
        shared = self.mailboxes.shared(inbox)
        while not self.closed:
            found = self.mailboxes.take_shared(inbox, time.monotonic())
            if found is not None:
                found[0].abandoned_at = None
                return found[0].name, found[1]
            sleeper = Sleeper(self._wakeups, shared, _cancelled_shared)
            shared.waiters.append(sleeper)
            await sleeper
        raise NodeClosed

    def _cancelled(self, box: Mailbox, sleeper: Sleeper[Mailbox], woken: bool) -> None:
        if not woken:
            box.waiters.remove(sleeper)
        elif box.parcels:
            self.mailboxes.wake(box)  # it was meant for us; the next may have it
        self._receiver_left(box)

    def _receiver_left(self, box: Mailbox) -> None:
        if box.waiters:
            return
        box.abandoned_at = time.monotonic()
        if not is_process_specific(box.name):
            self._readers.unwant(box)
            if box.parcels:
                self._tasks.spawn(self.give_back(box))


def _cancelled_shared(shared: SharedMailbox, sleeper: Sleeper[SharedMailbox], woken: bool) -> None:
    if not woken:
        shared.waiters.remove(sleeper)
    elif shared.ready:
        wake_one(shared.waiters)
