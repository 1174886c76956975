"""Groups: this process's members, their subscriptions, and the fan-out of a message.

A process is subscribed to a group while it has a member in it; one PUBLISH reaches all members.
While a group's slot moves it has two homes, and the process serves it at both, each by itself: a
message is published at one of them.

Members that another process added are *stored* on the group's shard, and whoever sends to the
group also sends to each of them. A member may be both, if two processes add it. Every change of a
stored membership is therefore published on the group's own channel, in order with its messages:
from ``stored`` to ``unstored`` a member is served by the senders and left out of the fan-out,
outside of that it is served by the fan-out. So it gets every message once. Positions are those of
the shard.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from cluster_layer.buffers import Audience, BriefSharedParcel, Mailbox, Parcel, SharedParcel
from cluster_layer.controls import LogEntry
from cluster_layer.links import Links
from cluster_layer.listener import Listener
from cluster_layer.members import Group, Member
from cluster_layer.memberships import Memberships
from cluster_layer.registrar import Registrar
from cluster_layer.relocation import Relocation
from cluster_layer.running import MAX_REDIRECTIONS, Redirected
from cluster_layer.subscriber import Subscriber


class Groups:
    """All groups in which this process has members; belongs to one loop."""

    def __init__(
        self,
        links: Links,
        subscriber_of: Callable[[str], Subscriber | None],
        put_all: Callable[[Audience, Parcel], None],
        context_of: Callable[[str], bytes],
        expiry_ms: int,
        in_order: Callable[[str], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`subscriber_of(shard)` is None for a shard that is none any more."""
        self._links = links
        self._put_all = put_all
        self._in_order = in_order
        self._memberships = Memberships(links, subscriber_of, context_of)
        self._on = self._memberships.on
        self._registrar = Registrar(self._memberships, links, expiry_ms, spawn)
        self._listener = Listener(self._memberships, self._registrar, links)
        self._relocation = Relocation(self._memberships, self._registrar, self._listener, links)

    def __len__(self) -> int:
        return len(self.names())

    def adopt(self, previous: Groups) -> None:
        """Go on with the memberships of another loop, before anything is subscribed here."""
        self._memberships.adopt(previous._memberships)

    def names(self) -> set[str]:
        return self._memberships.names()

    def on_shard(self, shard: str) -> Collection[str]:
        """The groups that are served at this shard."""
        return self._on[shard].keys()

    def members_on(self, shard: str) -> dict[str, list[Mailbox]]:
        """Group -> its members, of those that are served at this shard."""
        return {
            name: [member.box for member in group.members.values()]
            for name, group in self._on[shard].items()
        }

    def fan_out(
        self,
        shard: str,
        name: str,
        position: int,
        body: bytes,
        deadline: float,
        exclude: Collection[str] = (),
        brief: bool = False,
    ) -> None:
        """Give a message to every member that this process serves at this shard."""
        group = self._on[shard].get(name)
        if group is None:
            self._memberships.unsubscribe(shard, name)
            return
        audience = group.audience(position)
        if exclude:
            audience = audience.without(exclude)
        kind = BriefSharedParcel if brief else SharedParcel
        self._put_all(audience, kind(body, group.context, deadline))

    def served(self, shard: str, name: str, position: int) -> list[str]:
        """The members that would get a message of this position through this process."""
        group = self._on[shard].get(name)
        return [] if group is None else [box.name for box in group.audience(position).boxes]

    async def join(self, name: str, box: Mailbox, expires_at: float) -> None:
        """Add a member, at every home of the group.

        ShardUnavailable, DeliveryUnknown: it is not a member by this call.
        """
        was_member = any(member.active for _, member in self._memberships.of(name, box.name))
        try:
            for _ in range(MAX_REDIRECTIONS):
                routes = self._links.routes
                # Entered in the step that read the routes: newer ones find it there, and take it
                # along to the homes that they know.
                homes = routes.homes_of(name)
                entered = [self._memberships.enter(shard, name, box, expires_at) for shard in homes]
                try:
                    await self._join_at(entered, routes.epoch)
                    return
                except Redirected:
                    continue
            raise self._links.restless(name)
        except BaseException:
            if not was_member:
                self._give_up(name, box)
            raise

    async def accept(self, name: str, box: Mailbox, expires_at: float) -> None:
        """Take over a membership that another process has stored, if it still is."""
        for _ in range(MAX_REDIRECTIONS):
            # Where it is written to: there it is stored, if anywhere, and a copy comes from there.
            shard = self._links.routes.shard_of(name)
            if box.name in self._memberships.channels(shard, name):
                return  # it has one of its own
            group, member = self._memberships.enter(shard, name, box, expires_at)
            member.stored = member.invited = True
            by = await self._registrar.accept(group, member)
            if group.members.get(box.name) is member:
                break
            if shard in self._links.routes.homes_of(name):
                return  # it is void, or over
        else:
            return
        for other in self._links.routes.homes_of(name):
            has_none = box.name not in self._memberships.channels(other, name)
            if group.members.get(box.name) is member and has_none:
                elsewhere, taken = self._memberships.enter(other, name, box, expires_at)
                taken.came_from = (shard, *member.origin)
                # Once a round is committed, what is stored at one home is so at both, unless it has
                # been ended there.
                taken.stored = taken.invited = by is not None and by.is_committed
                await self._registrar.accept(elsewhere, taken)

    async def leave(self, name: str, box: Mailbox) -> None:
        """Remove a member, after everything that was published before this call.

        ShardUnavailable, DeliveryUnknown: it gets nothing more from its own membership, but another
        process may have stored it as well; then it still is a member by that.
        """
        try:
            # Removed there before it is dropped here: an invitation that comes in between must
            # find either a member or nothing to take over.
            for shard in await self._registrar.quit(name, box):
                await self._in_order(shard)
        finally:
            self.drop(name, box)

    def drop(self, name: str, box: Mailbox) -> None:
        """Remove a member from this process's side alone."""
        for group, member in self._memberships.of(name, box.name):
            self._memberships.remove(group, member)

    def drop_all(self, box: Mailbox) -> None:
        for name in tuple(box.groups):
            self.drop(name, box)

    def clear(self, shard: str) -> None:
        """Drop every membership on a shard."""
        for group in list(self._on[shard].values()):
            for member in list(group.members.values()):
                self._memberships.remove(group, member)

    def renew(self, now: float, expires_at: float) -> None:
        """Extend memberships whose receivers wait, drop those that are over."""
        for group in self._memberships.groups():
            for member in list(group.members.values()):
                if member.box.waiters:
                    member.expires_at = max(member.expires_at, expires_at)
                elif member.expires_at <= now:
                    self._memberships.remove(group, member)

    # -- what is heard, and where members are served

    def on_change(self, shard: str, change: LogEntry) -> None:
        """A membership was changed on the shard, by another process or by a take-over."""
        self._listener.on_change(shard, change)

    def on_kick(self, shard: str, kick: LogEntry, life: str) -> None:
        """Another process has removed a member; this came by the inbox, out of order."""
        self._listener.on_kick(shard, kick, life)

    def on_incarnation(self, shard: str, life: str) -> None:
        """The shard began blank."""
        self._listener.on_incarnation(shard, life)

    def follow(self, known: int) -> None:
        """Serve every group at the homes that it has now, and nowhere else; see `settle`.

        `known` is the epoch that was gone by until now.
        """
        self._relocation.follow(known)

    async def settle(self) -> None:
        """Return when the shards know of every member at every home. ClusterError: not yet."""
        await self._relocation.settle()

    # -- internals

    async def _join_at(self, entered: Sequence[tuple[Group, Member]], epoch: int) -> None:
        """Confirm a member at its homes; it joins from this step on, whatever is heard of it."""
        for _, member in entered:
            member.joins += 1
            member.joining += 1
        try:
            await self._registrar.confirm_all(entered, epoch)
            for _, member in entered:
                member.came_from = None  # it has joined here by itself
        finally:
            for group, member in entered:
                member.joins -= 1
                member.joining -= 1
                if member.is_over:
                    self._memberships.remove(group, member)

    def _give_up(self, name: str, box: Mailbox) -> None:
        """A join has failed: what it has reached at one home alone ends as well."""
        memberships = self._memberships.of(name, box.name)
        active = {group.shard for group, member in memberships if member.active}
        if not active.issuperset(self._links.routes.homes_of(name)):
            for group, member in memberships:
                if not member.joining:
                    self._memberships.remove(group, member)
