"""The receiving side of one process, on one event loop: lanes in, mailboxes out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from cluster_layer import log_limit
from cluster_layer.arrivals import Arrivals
from cluster_layer.buffers import Loss, Mailbox, wake_one
from cluster_layer.config import Config
from cluster_layer.control_handler import ControlHandler
from cluster_layer.controls import Control
from cluster_layer.counters import Counters
from cluster_layer.gap_watch import GapWatch
from cluster_layer.groups import Groups
from cluster_layer.inbox import Cursors, Entry
from cluster_layer.keys import Keys
from cluster_layer.lanes import GROUP, Lane
from cluster_layer.links import Links
from cluster_layer.losses import LossLog
from cluster_layer.lossy import mailboxes_of
from cluster_layer.names import inbox_name, is_process_specific
from cluster_layer.presence import Presence
from cluster_layer.readers import Readers
from cluster_layer.receivers import Receivers
from cluster_layer.routing import Routes
from cluster_layer.settling import Settling
from cluster_layer.tasks import Tasks
from cluster_layer.watchdog import Watchdog
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")

SWEEP_S = 1.0
LEARN_WITHIN_S = 0.05


class NodeState:
    """What a process keeps when its receiving loop ends: names, cursors, messages, memberships."""

    def __init__(self, process_id: str, config: Config, counters: Counters) -> None:
        self.process_id = process_id
        self.inboxes: set[str] = set()
        self.cursors = Cursors()
        self.mailboxes = mailboxes_of(config, counters.lose)
        self.gaps = GapWatch(self.mailboxes, config.on_gap, config.gap_message)
        self.positions: dict[tuple[str, str], int] = {}


class Node:
    """Reads everything that is for this process; one per process at a time."""

    def __init__(
        self,
        state: NodeState,
        links: Links,
        config: Config,
        counters: Counters,
        on_cancelled: Callable[[Node], Awaitable[None]],
        presence: Presence,
    ) -> None:
        """`on_cancelled` is called when the tasks of this loop are cancelled, as at its end."""
        self.loop = asyncio.get_running_loop()
        self._on_cancelled = on_cancelled
        self.state = state
        self.mailboxes = state.mailboxes
        self._links = links
        self._config = config
        self._counters = counters
        self._expiry_ms = round(config.expiry * 1000)
        self._tasks = Tasks(self.loop)
        self._arrivals = Arrivals(self, self.mailboxes, config, counters, self._tasks.spawn)
        self._readers = Readers(
            self, links, self._arrivals.lanes, state.cursors, self._expiry_ms, self._tasks
        )
        self.receivers = Receivers(
            self.mailboxes,
            state.inboxes,
            links,
            self._readers,
            self._expiry_ms,
            counters.lose,
            self._tasks,
        )
        self._subscribers = self._readers.subscribers
        self._inboxes_on = self._readers.inboxes_on
        self.groups = Groups(
            links,
            lambda shard: self._subscribers.get(shard),
            self.mailboxes.put_all,
            self._arrivals.group_context,
            round(config.group_expiry * 1000),
            self._arrivals.in_order,
            self._tasks.spawn,
        )
        self.process_id = state.process_id
        self._settling = Settling(
            links,
            self.groups,
            self._readers,
            self._arrivals.in_order,
            presence,
            state.inboxes,
            self._tasks,
        )
        self._controls = ControlHandler(
            state.process_id,
            links,
            self.mailboxes,
            self.groups,
            self._readers,
            self._arrivals,
            self._membership_end,
            self._tasks,
        )
        self._learning: dict[str, int] = {}  # shard -> the epoch that is being read from there
        self._routes: Routes | None = None  # by which this node serves
        self.follow()
        self._watchdog = Watchdog()
        self._losses = LossLog(counters)
        self._links.report()  # from now on it has duties, which come before its first join
        self._sweeper = self._tasks.spawn(self._sweep_forever())

    @property
    def closed(self) -> bool:
        return self.receivers.closed

    @property
    def alive(self) -> bool:
        """Whether it reads: neither stopped, nor on a loop that has ended."""
        return not self.closed and not self._sweeper.done() and self.loop.is_running()

    @property
    def stalled(self) -> Sequence[str]:
        """Readers that make no progress."""
        return self._watchdog.stalled

    async def ready(self) -> None:
        """Return when every subscription has been tried; it need not have come up."""
        subscribers = list(self._subscribers.values())
        await asyncio.gather(*(s.entered() for s in subscribers), return_exceptions=True)

    def adopt(self, previous: Node) -> None:
        """Go on with what a node had that was closed, or whose loop is dead.

        Its receivers are gone. Call it in the step that made this node.
        """
        for (lane, incarnation), position in previous._arrivals.lanes.positions().items():
            if lane.kind == GROUP:
                self.state.positions[lane.shard, incarnation] = position
        self.groups.adopt(previous.groups)
        self.mailboxes.desert(time.monotonic())
        self._routes = previous._routes
        self.follow()  # the topology may have changed since then

    # -- the topology

    def follow(self) -> None:
        """Serve every name at the homes that it has by the newest routes, and nowhere else."""
        if self._routes is self._links.routes:
            return
        known = self._links.routes.epoch if self._routes is None else self._routes.epoch
        if self._routes is not None and self.state.gaps.is_wanted:
            self._tell_of_moves(self._routes, self._links.routes)
        self._routes = self._links.routes
        self._readers.follow_shards()
        self._readers.follow_inboxes(self.state.inboxes)
        self.groups.follow(known)
        self._readers.follow_queues()
        for box in self.mailboxes:
            if box.waiters and not is_process_specific(box.name):
                self._readers.want(box)
        self._arrivals.lanes.learn(self._links.routes.epoch)
        self._settling.begin(self._links.routes)

    def _tell_of_moves(self, before: Routes, now: Routes) -> None:
        """Tell of names whose old home is none any more, and was not read to its end.

        In a planned change that is so only for a process that was left behind: where its messages
        were written to stays a home until it has read them.
        """
        groups: dict[str, list[Mailbox]] = {}
        inboxes: set[str] = set()
        for shard in set(self._readers.shards):
            members = self.groups.members_on(shard)
            groups |= {name: boxes for name, boxes in members.items() if _left(name, before, now)}
            inboxes |= {name for name in self._inboxes_on[shard] if _left(name, before, now)}
        lost = set(before.endpoints()) - set(now.endpoints())
        why = "their home was " + (f"lost: {', '.join(sorted(lost))}" if lost else "moved")
        self.state.gaps.moved(groups, self._boxes_of(inboxes), why)

    # -- members

    async def join(self, group: str, channel: str) -> None:
        """Add one of this process's channels to a group. ShardUnavailable, DeliveryUnknown."""
        self.receivers.watch_inbox(inbox_name(channel))
        box = self.mailboxes.open(channel)
        await self.groups.join(group, box, self._membership_end())

    async def leave(self, group: str, channel: str) -> None:
        """Remove one of this process's channels from a group. ShardUnavailable, DeliveryUnknown."""
        await self.groups.leave(group, self.mailboxes.open(channel))

    async def close_channel(self, channel: str) -> None:
        """Forget a channel, with its memberships and what waits for it.

        ShardUnavailable, DeliveryUnknown: it is forgotten all the same, see `leave`.
        """
        box = self.mailboxes.find(channel)
        if box is None:
            return
        try:
            await asyncio.gather(*(self.groups.leave(group, box) for group in tuple(box.groups)))
        finally:
            if self.mailboxes.find(channel) is box:
                self.forget(box)
            while wake_one(box.waiters):  # who still waits, does so at the channel's next mailbox
                pass

    def _membership_end(self) -> float:
        return time.monotonic() + self._config.group_expiry

    # -- what arrives: Subscribed, InboxOwner, QueueOwner

    def groups_on(self, shard: str) -> Collection[str]:
        return self.groups.on_shard(shard)

    def inboxes_on(self, shard: str) -> Collection[str]:
        return self._inboxes_on[shard]

    def has_inbox(self, name: str) -> bool:
        return name in self.state.inboxes

    def last_position(self, shard: str, incarnation: str) -> int | None:
        return self.state.positions.get((shard, incarnation))

    def on_subscription(self, shard: str, incarnation: str | None) -> None:
        """A shard's subscription has come up on this incarnation, or gone down."""
        lane = Lane(shard, GROUP)
        positions = self.state.positions
        if incarnation is None:
            known = self._arrivals.lanes.incarnation(lane)
            if known is not None:
                # One that came up and was lost before anything was heard knows less than the last.
                before = positions.get((shard, known), 0)
                positions[shard, known] = max(before, self._arrivals.lanes.received(lane))
                self.state.gaps.cut(shard, time.monotonic())
            self._arrivals.lanes.close(lane)
            return
        for old in [key for key in positions if key[0] == shard and key[1] != incarnation]:
            del positions[old]
            self.state.gaps.restarted(shard)
            self.groups.on_incarnation(shard, incarnation)
            # Others may have come here before us, and may have stored or kicked our members.
            positions[shard, incarnation] = 0
        self._arrivals.lanes.open(lane, incarnation)

    def on_missed(self, shard: str, publications: int) -> None:
        """So much was published on a shard, to any group, while the subscription was cut."""
        self._counters.shards[shard].missed += publications
        gaps = self.state.gaps
        if gaps.is_wanted:
            boxes = self._boxes_of(self._inboxes_on[shard])
            members = self.groups.members_on(shard)
            gaps.restored(shard, publications, members, boxes, time.monotonic())

    def _boxes_of(self, inboxes: Collection[str]) -> list[Mailbox]:
        """The channels that somebody reads, or has read, by these inboxes."""
        return [box for box in self.mailboxes if box.watched and inbox_name(box.name) in inboxes]

    def on_published(self, shard: str, keys: Keys, channel: bytes, payload: bytes) -> None:
        self._arrivals.on_published(shard, keys, channel, payload)

    def on_entries(
        self, shard: str, incarnation: str, now_ms: int, entries: Sequence[Entry]
    ) -> None:
        self._arrivals.on_entries(shard, incarnation, now_ms, entries)

    def on_item(self, shard: str, box: Mailbox, now_ms: int, item: bytes) -> None:
        if not self._arrivals.on_item(shard, box, now_ms, item):
            self._tasks.spawn(self.receivers.give_back(box))

    def lose(self, reason: Loss, count: int = 1) -> None:
        self._counters.lose(reason, count)

    # -- what arrivals need: Recipient

    def fan_out(
        self,
        shard: str,
        group: str,
        position: int,
        body: bytes,
        deadline: float,
        exclude: frozenset[str],
        brief: bool,
    ) -> None:
        self.groups.fan_out(shard, group, position, body, deadline, exclude, brief)

    def obey(self, control: Control) -> bool:
        return self._controls.obey(control)

    def on_announcement(self, shard: str, epoch: int) -> None:
        """A shard serves a newer topology: it has said so, or what has come from there does."""
        if epoch > max(self._links.topologies.routes.epoch, self._learning.get(shard, 0)):
            self._learning[shard] = epoch
            self._tasks.spawn(self._learn(shard, epoch))

    async def _learn(self, shard: str, epoch: int) -> None:
        """Get a topology that a shard announces, unless another one is quicker."""
        await asyncio.sleep(random.uniform(0, LEARN_WITHIN_S))  # all processes heard of it just now
        try:
            if epoch > self._links.topologies.routes.epoch and shard in self._readers.shards:
                with contextlib.suppress(ClusterError):  # the heartbeat comes to it
                    await self._links.to(shard).align()
        finally:
            self._learning.pop(shard, None)

    def late_s(self, shard: str) -> float:
        return self._subscribers[shard].late_s if shard in self._subscribers else 0.0

    def shard_time_ms(self, shard: str) -> float:
        return self._readers.shard_time_ms(shard)

    def come_to_the_end(self, lane: Lane) -> Awaitable[None]:
        return self._readers.come_to_the_end(lane)

    # -- upkeep

    async def _sweep_forever(self) -> None:
        try:
            while True:
                await asyncio.sleep(SWEEP_S)
                self._sweep(time.monotonic())
        except asyncio.CancelledError:
            if not self.closed:
                await self._on_cancelled(self)
            raise

    def _sweep(self, now: float) -> None:
        for box in self.mailboxes.expire(now):
            if not (box.parcels or box.waiters):
                self.forget(box)
        abandoned = now - self._config.expiry
        for box in list(self.mailboxes):
            if box.abandoned_at is not None and box.abandoned_at < abandoned:
                self.forget(box)
            elif box.idle:
                self.mailboxes.forget(box)
        self.state.gaps.sweep()
        self._watchdog.look(self._readers)
        self._losses.look(now)
        log_limit.tell_due()
        self.groups.renew(now, now + self._config.group_expiry)
        self._arrivals.expire(now)

    def forget(self, box: Mailbox) -> None:
        """Nobody reads this channel any more: drop it with its memberships."""
        self.groups.drop_all(box)
        if box.parcels:
            self.lose(Loss.ABANDONED, len(box.parcels))
        self.mailboxes.forget(box)

    def stop(self) -> list[asyncio.Task[None]]:
        """Read nothing more from now on; returns the tasks that are about to end."""
        self.receivers.closed = True
        tasks = [*self._readers.stop(), *self._tasks.cancel()]
        self.mailboxes.wake_all()
        return tasks

    async def close(self) -> None:
        """Stop reading; what was popped and not received goes back to its queue."""
        await asyncio.gather(*(queue.finish() for queue in self._readers.queues.values()))
        for box in list(self.mailboxes):
            if box.parcels and not is_process_specific(box.name):
                await self.receivers.give_back(box)
        await asyncio.gather(*self.stop(), return_exceptions=True)


def _left(name: str, before: Routes, now: Routes) -> bool:
    """Whether where a name was written to serves it no more."""
    return before.shard_of(name) not in now.homes_of(name)
