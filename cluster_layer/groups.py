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

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cluster_layer import scripts
from cluster_layer.buffers import Audience, BriefSharedParcel, Mailbox, Parcel, SharedParcel
from cluster_layer.controls import LogEntry, control, log_entry
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links
from cluster_layer.members import Group, Member
from cluster_layer.routing import Routes
from cluster_layer.running import MAX_REDIRECTIONS, Redirected
from cluster_layer.subscriber import Subscriber
from topology.errors import ClusterError

if TYPE_CHECKING:
    from cluster_layer.batching import Command

logger = logging.getLogger("cluster_layer")

ACCEPT_AGAIN_S = 0.5
# Groups that are asked about at once when thousands get a new home.
SETTLE_BATCH = 500


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
        self._subscriber_of = subscriber_of
        self._put_all = put_all
        self._context_of = context_of
        self._expiry_ms = expiry_ms
        self._in_order = in_order
        self._spawn = spawn
        self._on: defaultdict[str, dict[str, Group]] = defaultdict(dict)  # shard -> name -> group
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self.names())

    def adopt(self, previous: Groups) -> None:
        """Go on with the memberships of another loop, before anything is subscribed here."""
        for old in previous._all():
            group = self._on[old.shard][old.name] = Group(
                old.name,
                old.shard,
                old.context,
                old.members,
                settled=old.settled,
                known=old.known,
                home_since=old.home_since,
            )
            for member in list(group.members.values()):
                member.joining = 0
                member.active = member.active or member.stored
                if not member.active:  # whoever waited for the answer is gone
                    self._remove(group, member)

    def names(self) -> set[str]:
        return {name for groups in self._on.values() for name in groups}

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
            self._unsubscribe(shard, name)
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
        was_member = any(member.active for _, member in self._memberships(name, box))
        try:
            for _ in range(MAX_REDIRECTIONS):
                routes = self._links.routes
                # Entered in the step that read the routes: newer ones find it there, and take it
                # along to the homes that they know.
                homes = routes.homes_of(name)
                entered = [self._enter(shard, name, box, expires_at) for shard in homes]
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

    async def _join_at(self, entered: Sequence[tuple[Group, Member]], epoch: int) -> None:
        """Confirm a member at its homes; it joins from this step on, whatever is heard of it."""
        for _, member in entered:
            member.joins += 1
            member.joining += 1
        try:
            await _all(self._confirm(group, member, epoch=epoch) for group, member in entered)
            for _, member in entered:
                member.came_from = None  # it has joined here by itself
        finally:
            for group, member in entered:
                member.joins -= 1
                member.joining -= 1
                if member.is_over:
                    self._remove(group, member)

    async def accept(self, name: str, box: Mailbox, expires_at: float) -> None:
        """Take over a membership that another process has stored, if it still is."""
        for _ in range(MAX_REDIRECTIONS):
            # Where it is written to: there it is stored, if anywhere, and a copy comes from there.
            shard = self._links.routes.shard_of(name)
            if box.name in self._members(shard, name):
                return  # it has one of its own
            group, member = self._enter(shard, name, box, expires_at)
            member.stored = member.invited = True
            by = await self._accept(group, member)
            if group.members.get(box.name) is member:
                break
            if shard in self._links.routes.homes_of(name):
                return  # it is void, or over
        else:
            return
        for other in self._links.routes.homes_of(name):
            if group.members.get(box.name) is member and box.name not in self._members(other, name):
                elsewhere, taken = self._enter(other, name, box, expires_at)
                taken.came_from = (shard, *member.origin)
                # Once a round is committed, what is stored at one home is so at both, unless it has
                # been ended there.
                taken.stored = taken.invited = by is not None and by.is_committed
                await self._accept(elsewhere, taken)

    async def leave(self, name: str, box: Mailbox) -> None:
        """Remove a member, after everything that was published before this call.

        ShardUnavailable, DeliveryUnknown: it gets nothing more from its own membership, but another
        process may have stored it as well; then it still is a member by that.
        """
        try:
            # Removed there before it is dropped here: an invitation that comes in between must
            # find either a member or nothing to take over.
            for shard in await self._quit(name, box):
                await self._in_order(shard)
        finally:
            self.drop(name, box)

    def drop(self, name: str, box: Mailbox) -> None:
        """Remove a member from this process's side alone."""
        for group, member in self._memberships(name, box):
            self._remove(group, member)

    def drop_all(self, box: Mailbox) -> None:
        for name in tuple(box.groups):
            self.drop(name, box)

    def clear(self, shard: str) -> None:
        """Drop every membership on a shard."""
        for group in list(self._on[shard].values()):
            for member in list(group.members.values()):
                self._remove(group, member)

    def renew(self, now: float, expires_at: float) -> None:
        """Extend memberships whose receivers wait, drop those that are over."""
        for group in self._all():
            for member in list(group.members.values()):
                if member.box.waiters:
                    member.expires_at = max(member.expires_at, expires_at)
                elif member.expires_at <= now:
                    self._remove(group, member)

    def on_change(self, shard: str, change: LogEntry) -> None:
        """A membership was changed on the shard, by another process or by a take-over."""
        op, position = change.op, change.position
        group = self._on[shard].get(change.group)
        member = group.members.get(change.channel) if group else None
        if group is None or member is None or change.epoch <= group.known:
            return  # the last: it is from before this home was one
        group.changed()
        if op == "stored" and position > member.since:
            member.stored = True
            member.stored_at = position
            if not member.joining and position > member.joined_at:
                self._serve_again(group, member)
        elif op == "unstored" and position >= member.since:
            member.stored = False
            member.active = True
            member.unstored_at = position
        elif op == "leave":
            self._kicked(group, member, position)
            self._end_elsewhere(shard, change, self._life_of(shard))

    def _kicked(self, group: Group, member: Member, position: int) -> None:
        member.stored = False
        member.kicked_at = position
        if member.since < position <= member.joined_at:
            member.since = member.joined_at  # it has come back after that
            group.latest_since = max(group.latest_since, member.since)
        if position > member.joined_at:
            member.active = False
            if not member.joining:  # else the answer tells which came first
                self._remove(group, member)

    def _end_elsewhere(self, shard: str, kick: LogEntry, life: str) -> None:
        """A kick counts for where the member was taken along to, if its writer did not know that.

        One that knew has kicked there as well, and that is heard in order with the messages there.
        """
        for group, member in self._taken_from(shard, kick.group, kick.channel):
            _, joined_in, joined_at = member.came_from or ("", "", 0)
            later = life != joined_in or kick.position > joined_at
            if kick.epoch < group.home_since and later:
                member.active = False
                group.changed()
                if member.continues:
                    self._remove(group, member)
                member.came_from = None  # if it joins by itself, it comes back by that

    def on_kick(self, shard: str, kick: LogEntry, life: str) -> None:
        """Another process has removed a member; this came by the inbox, out of order.

        The control on the group's channel comes in order, unless the shard dies before: then this
        is what keeps the member from coming back in the shard's next life, or at another home.
        """
        position = kick.position
        group = self._on[shard].get(kick.group)
        member = group.members.get(kick.channel) if group else None
        if group is None or member is None or kick.epoch <= group.known:
            # The shard was lost, or the slot has moved.
            self._end_elsewhere(shard, kick, life)
            return
        joined_in, joined_at = member.origin
        current = self._life_of(shard)
        if life == current:
            member.notice = (life, position)
        elif joined_in not in ("", current) and not (life == joined_in and position <= joined_at):
            self._remove(group, member)

    def on_incarnation(self, shard: str, life: str) -> None:
        """The shard began blank: what was stored there is gone, positions begin anew.

        What others have done there since will be learnt from its log. A join that was answered in
        this life, before its log could be read, keeps its position there.
        """
        for group in list(self._on[shard].values()):
            group.changed()
            group.latest_since = 0
            for member in list(group.members.values()):
                joined_in, joined_at = member.origin
                if member.was_kicked:
                    self._remove(group, member)  # and nobody lived to publish it
                # One that joins is none yet; one that was stored is nowhere but here.
                member.active = member.active or member.stored
                member.stored = False
                member.kicked_at = member.stored_at = 0
                member.taken_at = member.unstored_at = 0
                here = joined_at if joined_in == life else 0
                if member.joined_at != here:
                    member.joined_at = member.since = here
                group.latest_since = max(group.latest_since, member.since)

    # -- when the topology changes

    def follow(self, known: int) -> None:
        """Serve every group at the homes that it has now, and nowhere else; see `settle`.

        `known` is the epoch that was gone by until now.
        """
        routes = self._links.routes
        # An epoch was missed, in which the other home may have been none: begin there anew.
        anew = routes.is_prepared and known < routes.topology.homes_since
        homes_of = self._links.routes.homes_of
        moving = {
            name: homes
            for shard, groups in self._on.items()
            for name in groups
            if (homes := homes_of(name)) != (shard,)
        }
        for name, homes in moving.items():
            here, *others = homes
            for shard in others if anew and name in self._on[here] else ():
                if name in self._on[shard]:
                    self._leave_home(self._on[shard][name])
            present = [groups[name] for groups in self._on.values() if name in groups]
            for shard in homes:
                if name not in self._on[shard]:
                    self._take_along(shard, name, present, known)
            for group in present:
                if group.shard not in homes:
                    self._leave_home(group)

    async def settle(self) -> None:
        """Return when the shards know of every member at every home. ClusterError: not yet."""
        for shard in list(self._on):
            unsettled = [group for group in self._on[shard].values() if not group.settled]
            if not unsettled:
                continue
            changes = _Changes(self._links.to(shard))
            for start in range(0, len(unsettled), SETTLE_BATCH):
                await self._settle(shard, unsettled[start : start + SETTLE_BATCH], changes)

    # -- internals

    def _life_of(self, shard: str) -> str:
        """The incarnation of a shard; empty if it is none any more, or was never reached."""
        with contextlib.suppress(Redirected):
            return self._links.to(shard).keys.incarnation
        return ""

    def _members(self, shard: str, name: str) -> Collection[str]:
        group = self._on[shard].get(name)
        return () if group is None else group.members.keys()

    def _all(self) -> list[Group]:
        return [group for groups in self._on.values() for group in groups.values()]

    def _memberships(self, name: str, box: Mailbox) -> list[tuple[Group, Member]]:
        """What a channel is in a group, home by home."""
        return self._memberships_of(name, box.name)

    def _memberships_of(self, name: str, channel: str) -> list[tuple[Group, Member]]:
        groups = [groups[name] for groups in self._on.values() if name in groups]
        return [(group, group.members[channel]) for group in groups if channel in group.members]

    def _taken_from(self, shard: str, name: str, channel: str) -> list[tuple[Group, Member]]:
        """What a member is at the homes to which it was taken along from this one."""
        return [
            (group, member)
            for group, member in self._memberships_of(name, channel)
            if member.came_from is not None and member.came_from[0] == shard
        ]

    def _enter(
        self, shard: str, name: str, box: Mailbox, expires_at: float
    ) -> tuple[Group, Member]:
        group = self._on[shard].get(name)
        if group is None:
            group = self._on[shard][name] = Group(name, shard, self._context_of(name), settled=True)
            routes = self._links.routes
            if routes.is_new_home(name, shard):
                group.home_since = routes.topology.homes_since
                group.known = group.home_since - 1
        member = group.members.get(box.name)
        if member is None:
            member = group.members[box.name] = Member(box, expires_at)
            box.groups.add(name)
        member.expires_at = max(expires_at, member.expires_at)
        return group, member

    def _give_up(self, name: str, box: Mailbox) -> None:
        """A join has failed: what it has reached at one home alone ends as well."""
        memberships = self._memberships(name, box)
        active = {group.shard for group, member in memberships if member.active}
        if not active.issuperset(self._links.routes.homes_of(name)):
            for group, member in memberships:
                if not member.joining:
                    self._remove(group, member)

    def _take_along(self, shard: str, name: str, present: Sequence[Group], known: int) -> None:
        """Give a group another home, with the members that it has.

        They are active there only when it is known what others have done there before us.
        """
        home_since = max(known + 1, self._links.routes.topology.homes_since)
        context = self._context_of(name)
        group = Group(name, shard, context, known=known, home_since=home_since)
        for old in present:
            for channel, member in old.members.items():
                if channel in group.members or member.was_kicked:
                    continue
                is_lost = old.shard not in self._links.routes.endpoints()
                is_member = member.active or (member.stored and (is_lost or not member.invited))
                if is_member or member.joins:
                    came_from = (old.shard, *member.origin) if is_member else None
                    taken = Member(member.box, member.expires_at, came_from=came_from)
                    group.members[channel] = taken
        if group.members:
            self._on[shard][name] = group

    def _leave_home(self, group: Group) -> None:
        """Serve a group no more at what is no home of it any more."""
        del self._on[group.shard][group.name]
        self._unsubscribe(group.shard, group.name)
        for channel, member in group.members.items():
            if not self._memberships_of(group.name, channel):
                member.box.groups.discard(group.name)
        group.members.clear()

    async def _settle(self, shard: str, groups: Sequence[Group], changes: _Changes) -> None:
        fresh = [group for group in groups if not group.is_subscribing]
        if fresh:
            task = self._loop.create_task(self._subscribe(shard, fresh))
            for group in fresh:
                group.subscribed = task
        for group in groups:
            await self._subscribed(group)
        # What others did here before we were subscribed was never heard of.
        for change in await changes.of(groups):
            self.on_change(shard, change)
        link, epoch = self._links.to(shard), self._links.routes.epoch
        connection = await link.ready()
        names = [link.keys.members(group.name) for group in groups]
        replies = await connection.execute(*(("EXISTS", name) for name in names))
        for group, exists in zip(groups, replies if len(groups) > 1 else (replies,), strict=True):
            members = list(group.members.values())
            unknown = [m for m in members if exists or not (m.active or m.came_from)]
            asked = [member for member in unknown if not member.invited]
            await _all(self._confirm(group, member, epoch=epoch) for member in asked)
            for member in group.members.values():
                member.active = member.active or (member.came_from is not None and not exists)
            group.changed()
            group.settled = True

    async def _quit(self, name: str, box: Mailbox) -> Sequence[str]:
        """End what others have stored of a member; returns the homes where that was done."""
        for _ in range(MAX_REDIRECTIONS):
            routes = self._links.routes
            homes = routes.homes_of(name)
            try:
                await _all(self._quit_at(shard, name, box, routes) for shard in homes)
                return homes
            except Redirected:
                continue
        raise self._links.restless(name)

    async def _quit_at(self, shard: str, name: str, box: Mailbox, routes: Routes) -> None:
        copied = routes.needs_tombstone(name, shard)

        def build(keys: Keys) -> tuple[tuple[bytes, ...], Command]:
            return (keys.members(name),), (box.name, self._expiry_ms, int(copied))

        await self._links.to(shard).run(scripts.GROUP_QUIT, routes.epoch, build)

    async def _subscribed(self, group: Group) -> None:
        """Return once the shard has confirmed the group's subscription."""
        if not group.is_subscribing:
            group.subscribed = self._loop.create_task(self._subscribe(group.shard, [group]))
        task = group.subscribed
        if task is not None and not task.done():
            await asyncio.shield(task)

    async def _subscribe(self, shard: str, groups: Sequence[Group]) -> None:
        subscriber = self._subscriber_of(shard)
        if subscriber is None:
            raise Redirected(shard, "the topology has no such shard any more")
        try:
            await subscriber.subscribe([group.name for group in groups])
        except (ShardUnavailable, DeliveryUnknown) as error:
            if self._subscriber_of(shard) is not subscriber:
                raise Redirected(shard, error.reason) from error
            raise
        for group in groups:
            if group.name not in self._on[shard]:  # left meanwhile
                subscriber.unsubscribe(group.name)

    def _unsubscribe(self, shard: str, name: str) -> None:
        subscriber = self._subscriber_of(shard)
        if subscriber is not None:
            subscriber.unsubscribe(name)

    async def _accept(self, group: Group, member: Member) -> Routes | None:
        """Make a member that did not join by itself known to its shard, as soon as can be.

        Returns the routes by which that was done; None: it is over, or was made active otherwise.
        """
        # A new incarnation makes it active: what was stored there is gone, we are who knows of it.
        while group.members.get(member.box.name) is member and not member.active:
            routes = self._links.routes
            try:
                if member.continues and not member.invited:
                    await self._hear_of(group, member)
                    if group.members.get(member.box.name) is not member:
                        return None
                await self._confirm(group, member, epoch=routes.epoch, invited=member.invited)
                return routes
            except Redirected:
                continue  # by a newer topology, which may have other homes
            except ClusterError as error:
                _stays_with_the_senders(group, member, error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
        return None

    async def _hear_of(self, group: Group, member: Member) -> None:
        """Drop what would continue here, if it has been kicked here, before we were subscribed."""
        await self._subscribed(group)
        link, channel = self._links.to(group.shard), member.box.name
        connection = await link.ready()
        score = await connection.execute(("ZSCORE", link.keys.members(group.name), channel))
        never = score is None and self._links.routes.is_prepared  # else there is a tombstone
        if not never and float(score or 0) <= 0:
            changes = await _Changes(link).of([group])
            latest = [change for change in changes if change.channel == channel][-1:]
            if any(change.op == "leave" for change in latest):
                self._remove(group, member)

    async def _confirm(
        self, group: Group, member: Member, *, epoch: int, invited: bool = False
    ) -> None:
        """Make a membership known to the shard.

        If that fails, one that was not active before ends, unless it came by an invitation. An
        invitation to what is not stored any more is void.
        """
        member.joining += 1
        try:
            link = self._links.to(group.shard)
            await self._subscribed(group)
            was_stored, position = await self._take_over(group, member, epoch)
        except BaseException:
            member.joining -= 1
            if member.is_over and not invited:
                self._remove(group, member)
            raise
        member.joining -= 1
        if was_stored or not member.continues:
            member.joined_at = max(member.joined_at, position)
        if was_stored:
            member.taken_at = position
        member.origin = (link.keys.incarnation, member.joined_at)
        group.changed()
        if invited and member.invited and not (was_stored or member.active):
            if not member.joins:  # else that makes it a member, whatever was stored
                self._remove(group, member)  # it has expired, or has been kicked
                for other, taken in self._taken_from(group.shard, group.name, member.box.name):
                    self._remove(other, taken)
            return
        member.invited = False
        if not member.active:
            self._activate(group, member, was_stored, position)
        elif member.stored and not was_stored:
            self._serve_again(group, member)

    def _activate(self, group: Group, member: Member, was_stored: bool, position: int) -> None:
        """The shard has answered to a new member; controls may have come before the answer."""
        if not member.since or member.kicked_at > member.since:  # else it has been one since then
            member.since = position
            group.latest_since = max(group.latest_since, position)
        if member.kicked_at > member.joined_at:
            if not member.joining:
                self._remove(group, member)
            return
        if was_stored:
            member.stored = True  # until the control arrives, which makes it active
            return
        member.active = True
        if member.stored_at <= position:
            member.stored = False  # it was removed again before the join
        elif member.stored:
            self._serve_again(group, member)

    async def _take_over(self, group: Group, member: Member, epoch: int) -> tuple[bool, int]:
        """End a stored membership: whether there was one, and the position of this moment.

        If there was one, ``unstored`` follows on the group's channel.
        """
        unstored = control("unstored", group.name, member.box.name, epoch)
        copied = self._links.routes.needs_tombstone(group.name, group.shard)

        def build(keys: Keys) -> tuple[tuple[bytes, ...], Command]:
            return (
                (keys.members(group.name), keys.seq, keys.log),
                (
                    *(member.box.name, self._expiry_ms),
                    *(keys.group(group.name), unstored, int(copied)),
                ),
            )

        link = self._links.to(group.shard)
        was_stored, position = await link.run(scripts.GROUP_JOIN, epoch, build)
        return bool(was_stored), position

    def _serve_again(self, group: Group, member: Member) -> None:
        self._spawn(self._take_over_stored(group, member))

    async def _take_over_stored(self, group: Group, member: Member) -> None:
        """Serve a member again that another process has stored as well."""
        member.joining += 1  # what is heard meanwhile does not end it: the answer may be later
        was_stored, position = False, -1
        again = True
        while again and group.members.get(member.box.name) is member:
            again = False
            try:
                epoch = self._links.routes.epoch
                was_stored, position = await self._take_over(group, member, epoch)
            except Redirected:
                again = True
            except ClusterError as error:
                _stays_with_the_senders(group, member, error)
        member.joining -= 1
        if was_stored:
            member.taken_at = position
        if was_stored and position > member.joined_at:
            # Whoever was kicked before that has been stored again since.
            member.joined_at = position
            member.origin = (self._life_of(group.shard), position)
        if member.stored and position >= 0 and member.stored_at > position:
            self._serve_again(group, member)  # it has been stored once more since then
        elif member.stored and position >= 0 and member.taken_at <= member.stored_at:
            # Nothing is stored any more, and no control said so: the membership has expired, or was
            # ended by its own leave. Senders have served what was published up to here.
            member.since = max(member.since, position)
            group.latest_since = max(group.latest_since, position)
            member.stored = False
            member.active = True
            group.changed()
        elif member.is_over:
            self._remove(group, member)  # it was kicked, and nobody has stored it since

    def _remove(self, group: Group, member: Member) -> None:
        name, channel = group.name, member.box.name
        if group.members.get(channel) is not member:
            return
        del group.members[channel]
        group.changed()
        if not self._memberships_of(name, channel):
            member.box.groups.discard(name)
        if not group.members and self._on[group.shard].get(name) is group:
            del self._on[group.shard][name]
            self._unsubscribe(group.shard, name)


class _Changes:
    """What a shard's log says of groups that have got their home there."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._read_to = -1
        self._entries: list[LogEntry] = []

    async def of(self, groups: Sequence[Group]) -> list[LogEntry]:
        """The changes by writers that knew of the new home, in order. ClusterError."""
        connection = await self._link.ready()
        payloads = await connection.execute(
            ("ZRANGEBYSCORE", self._link.keys.log, f"({self._read_to}", "+inf")
        )
        entries = [entry for payload in payloads if (entry := log_entry(payload))]
        self._entries += entries
        self._read_to = max([self._read_to, *(entry.position for entry in entries)])
        known = {group.name: group.known for group in groups}
        return [e for e in self._entries if e.epoch > known.get(e.group, e.epoch)]


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Wait for all; raises what says the most of those that failed."""
    awaitables = list(works)
    if len(awaitables) == 1:
        await awaitables[0]
        return
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Redirected))


def _stays_with_the_senders(group: Group, member: Member, error: ClusterError) -> None:
    logger.info("group %s: %s stays with the senders: %s", group.name, member.box.name, error)
