"""Groups: this process's members, their subscriptions, and the fan-out of a message.

A process is subscribed to a group while it has a member in it; one PUBLISH reaches all members.
Members that another process added are *stored* on the group's shard, and whoever sends to the
group also sends to each of them. A member may be both, if two processes add it. Every change of a
stored membership is therefore published on the group's own channel, in order with its messages:
from ``stored`` to ``unstored`` a member is served by the senders and left out of the fan-out,
outside of that it is served by the fan-out. So it gets every message once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster_layer import scripts
from cluster_layer.buffers import Mailbox, Parcel
from cluster_layer.keys import Keys
from cluster_layer.links import Links
from cluster_layer.subscriber import Subscriber
from cluster_layer.writer import control
from topology.errors import ClusterError

if TYPE_CHECKING:
    from cluster_layer.batching import Command

logger = logging.getLogger("cluster_layer")


ACCEPT_AGAIN_S = 0.5


@dataclass(slots=True, eq=False)
class Member:
    """A membership of one of this process's channels. Times in seconds of the loop's clock."""

    box: Mailbox
    expires_at: float
    active: bool = False  # the shard has confirmed
    stored: bool = False  # senders serve it, not the fan-out
    joining: int = 0  # calls that wait for the shard's answer
    # Positions on the shard of the latest join, kick and store: the higher one is the later.
    joined_at: int = 0
    since: int = 0  # what was published up to here is not for this member
    kicked_at: int = 0
    stored_at: int = 0
    # Life and position of the latest join, and of a kick that was told out of order.
    origin: tuple[str, int] = ("", 0)
    notice: tuple[str, int] = ("", 0)

    @property
    def served(self) -> bool:
        """Whether the fan-out serves it."""
        return self.active and not self.stored


@dataclass(slots=True, eq=False)
class Group:
    """The members that this process has in one group."""

    name: str
    shard: str
    context: bytes
    members: dict[str, Member] = field(default_factory=dict)
    subscribed: asyncio.Task[None] | None = None
    latest_since: int = 0
    _targets: tuple[Mailbox, ...] | None = None

    def targets(self, position: int) -> tuple[Mailbox, ...]:
        """The mailboxes that get the message at this position."""
        if position <= self.latest_since:
            return tuple(m.box for m in self.members.values() if m.served and m.since < position)
        if self._targets is None:
            self._targets = tuple(member.box for member in self.members.values() if member.served)
        return self._targets

    def changed(self) -> None:
        self._targets = None


class Groups:
    """All groups in which this process has members; belongs to one loop."""

    def __init__(
        self,
        links: Links,
        subscriber_of: Callable[[str], Subscriber],
        put_all: Callable[[Sequence[Mailbox], Parcel], None],
        context_of: Callable[[str], bytes],
        expiry_ms: int,
        in_order: Callable[[str], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._links = links
        self._subscriber_of = subscriber_of
        self._put_all = put_all
        self._context_of = context_of
        self._expiry_ms = expiry_ms
        self._in_order = in_order
        self._spawn = spawn
        self._groups: dict[str, Group] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._groups)

    def adopt(self, previous: Groups) -> None:
        """Go on with the memberships of another loop, before anything is subscribed here."""
        for name, old in previous._groups.items():
            group = self._groups[name] = Group(name, old.shard, old.context, old.members)
            for channel, member in list(group.members.items()):
                member.joining = 0
                member.active = member.active or member.stored
                if not member.active:  # whoever waited for the answer is gone
                    self._remove(group, channel, member)

    def on_shard(self, shard: str) -> list[str]:
        return [group.name for group in self._groups.values() if group.shard == shard]

    def fan_out(self, name: str, position: int, body: bytes, deadline: float) -> None:
        """Give a message to every member that this process serves."""
        group = self._groups.get(name)
        if group is None:
            self._subscriber_of(self._links.routes.shard_of(name)).unsubscribe(name)
            return
        self._put_all(group.targets(position), Parcel(body, group.context, deadline))

    async def join(self, name: str, box: Mailbox, expires_at: float) -> None:
        """Add a member. ShardUnavailable, DeliveryUnknown: it is not a member by this call."""
        group, member = self._enter(name, box, expires_at)
        await self._confirm(group, member)

    async def accept(self, name: str, box: Mailbox, expires_at: float) -> None:
        """Take over a membership that another process has stored, if it still is."""
        group = self._groups.get(name)
        if group is not None and box.name in group.members:
            return  # it has one of its own
        group, member = self._enter(name, box, expires_at)
        member.stored = True
        # A new incarnation makes it active: what was stored there is gone, we are who knows of it.
        while group.members.get(box.name) is member and not member.active:
            try:
                await self._confirm(group, member, invited=True)
                return
            except ClusterError as error:
                logger.info("group %s: %s stays with the senders: %s", name, box.name, error)
                await asyncio.sleep(ACCEPT_AGAIN_S)

    async def leave(self, name: str, box: Mailbox) -> None:
        """Remove a member, after everything that was published before this call.

        ShardUnavailable, DeliveryUnknown: it gets nothing more from its own membership, but another
        process may have stored it as well; then it still is a member by that.
        """
        link = self._links.to(self._links.routes.shard_of(name))
        try:
            # Removed there before it is dropped here: an invitation that comes in between must
            # find either a member or nothing to take over.
            connection = await link.ready()
            await connection.execute(("ZREM", link.keys.members(name), box.name))
            await self._in_order(link.shard)
        finally:
            self.drop(name, box)

    def drop(self, name: str, box: Mailbox) -> None:
        """Remove a member from this process's side alone."""
        group = self._groups.get(name)
        if group is not None:
            self._remove(group, box.name, group.members.get(box.name))

    def drop_all(self, box: Mailbox) -> None:
        for name in tuple(box.groups):
            self.drop(name, box)

    def clear(self, shard: str) -> None:
        """Drop every membership on a shard."""
        for group in [group for group in self._groups.values() if group.shard == shard]:
            for name, member in list(group.members.items()):
                self._remove(group, name, member)

    def renew(self, now: float, expires_at: float) -> None:
        """Extend memberships whose receivers wait, drop those that are over."""
        for group in list(self._groups.values()):
            for name, member in list(group.members.items()):
                if member.box.waiters:
                    member.expires_at = max(member.expires_at, expires_at)
                elif member.expires_at <= now:
                    self._remove(group, name, member)

    def on_control(self, op: str, name: str, channel: str, position: int) -> None:
        """A membership was changed on the shard, by another process or by a take-over."""
        group = self._groups.get(name)
        member = group.members.get(channel) if group else None
        if group is None or member is None:
            return
        group.changed()
        if op == "stored" and position > member.since:
            member.stored = True
            member.stored_at = position
            if not member.joining and position > member.joined_at:
                self._serve_again(group, member)
        elif op == "unstored" and position >= member.since:
            member.stored = False
            member.active = True
        elif op == "leave":
            member.stored = False
            member.kicked_at = position
            if member.since < position <= member.joined_at:
                member.since = member.joined_at  # it has come back after that
                group.latest_since = max(group.latest_since, member.since)
            if position > member.joined_at:
                member.active = False
                if not member.joining:  # else the answer tells which came first
                    self._remove(group, channel, member)

    def on_kick(self, name: str, channel: str, life: str, position: int) -> None:
        """Another process has removed a member; this came by the inbox, out of order.

        The control on the group's channel comes in order, unless the shard dies before: then this
        is what keeps the member from coming back in the shard's next life.
        """
        group = self._groups.get(name)
        member = group.members.get(channel) if group else None
        if group is None or member is None:
            return
        joined_in, joined_at = member.origin
        current = self._links.to(group.shard).keys.incarnation
        if life == current:
            member.notice = (life, position)
        elif joined_in not in ("", current) and not (life == joined_in and position <= joined_at):
            self._remove(group, channel, member)

    def on_incarnation(self, shard: str, life: str) -> None:
        """The shard began blank: what was stored there is gone, positions begin anew.

        What others have done there since will be learnt from its log. A join that was answered in
        this life, before its log could be read, keeps its position there.
        """
        for group in [group for group in self._groups.values() if group.shard == shard]:
            group.changed()
            group.latest_since = 0
            for channel, member in list(group.members.items()):
                kicked_in, position = member.notice
                joined_in, joined_at = member.origin
                if kicked_in and (kicked_in != joined_in or position > joined_at):
                    self._remove(group, channel, member)  # kicked, and nobody lived to publish it
                # One that joins is none yet; one that was stored is nowhere but here.
                member.active = member.active or member.stored
                member.stored = False
                member.kicked_at = member.stored_at = 0
                here = joined_at if joined_in == life else 0
                if member.joined_at != here:
                    member.joined_at = member.since = here
                group.latest_since = max(group.latest_since, member.since)

    # -- internals

    def _enter(self, name: str, box: Mailbox, expires_at: float) -> tuple[Group, Member]:
        group = self._groups.get(name)
        if group is None:
            shard = self._links.routes.shard_of(name)
            group = self._groups[name] = Group(name, shard, self._context_of(name))
        member = group.members.get(box.name)
        if member is None:
            member = group.members[box.name] = Member(box, expires_at)
            box.groups.add(name)
        member.expires_at = max(expires_at, member.expires_at)
        return group, member

    async def _subscribed(self, group: Group) -> None:
        """Return once the shard has confirmed the group's subscription."""
        task = group.subscribed
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = group.subscribed = self._loop.create_task(self._subscribe(group))
        if not task.done():
            await asyncio.shield(task)

    async def _subscribe(self, group: Group) -> None:
        subscriber = self._subscriber_of(group.shard)
        await subscriber.subscribe(group.name)
        if group.name not in self._groups:  # left meanwhile
            subscriber.unsubscribe(group.name)

    async def _confirm(self, group: Group, member: Member, *, invited: bool = False) -> None:
        """Make a membership known to the shard.

        If that fails, one that was not active before ends, unless it came by an invitation. An
        invitation to what is not stored any more is void.
        """
        member.joining += 1
        try:
            await self._subscribed(group)
            was_stored, position = await self._take_over(group, member)
        except BaseException:
            member.joining -= 1
            if not (member.active or member.joining or invited):
                self._remove(group, member.box.name, member)
            raise
        member.joining -= 1
        member.joined_at = max(member.joined_at, position)
        member.origin = (self._links.to(group.shard).keys.incarnation, member.joined_at)
        group.changed()
        if invited and not (was_stored or member.active or member.joining):
            self._remove(group, member.box.name, member)  # it has expired, or has been kicked
        elif not member.active:
            self._activate(group, member, was_stored, position)
        elif member.stored and not was_stored:
            self._serve_again(group, member)

    def _activate(self, group: Group, member: Member, was_stored: bool, position: int) -> None:
        """The shard has answered to a new member; controls may have come before the answer."""
        if not member.since or member.kicked_at > member.since:  # else it has been one since then
            member.since = position
            group.latest_since = max(group.latest_since, position)
        if member.kicked_at > position:
            if not member.joining:
                self._remove(group, member.box.name, member)
            return
        if was_stored:
            member.stored = True  # until the control arrives, which makes it active
            return
        member.active = True
        if member.stored_at <= position:
            member.stored = False  # it was removed again before the join
        elif member.stored:
            self._serve_again(group, member)

    async def _take_over(self, group: Group, member: Member) -> tuple[bool, int]:
        """End a stored membership: whether there was one, and the position of this moment.

        If there was one, ``unstored`` follows on the group's channel.
        """
        unstored = control("unstored", group.name, member.box.name)

        def build(keys: Keys, _fence_ms: int) -> tuple[tuple[bytes, ...], Command]:
            return (
                (keys.members(group.name), keys.seq, keys.log),
                (member.box.name, keys.group(group.name), unstored, self._expiry_ms),
            )

        was_stored, position = await self._links.to(group.shard).run(scripts.GROUP_JOIN, build)
        return bool(was_stored), position

    def _serve_again(self, group: Group, member: Member) -> None:
        self._spawn(self._take_over_stored(group, member))

    async def _take_over_stored(self, group: Group, member: Member) -> None:
        """Serve a member again that another process has stored as well."""
        try:
            was_stored, position = await self._take_over(group, member)
        except ClusterError as error:
            logger.info(
                "group %s: %s stays with the senders: %s", group.name, member.box.name, error
            )
            return
        if was_stored or not member.stored:
            return  # the control on the group's channel does it, or has done it
        # Nothing is stored any more, and no control said so: the membership has expired, or was
        # ended by its own leave. Senders have served what was published up to here.
        member.since = max(member.since, position)
        group.latest_since = max(group.latest_since, position)
        member.stored = False
        member.active = True
        group.changed()

    def _remove(self, group: Group, name: str, member: Member | None) -> None:
        if member is None or group.members.get(name) is not member:
            return
        del group.members[name]
        member.box.groups.discard(group.name)
        group.changed()
        if not group.members and self._groups.get(group.name) is group:
            del self._groups[group.name]
            self._subscriber_of(group.shard).unsubscribe(group.name)
