"""Makes memberships known to their shards, and takes over what other processes have stored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cluster_layer import scripts
from cluster_layer.buffers import Mailbox
from cluster_layer.controls import control
from cluster_layer.keys import Keys
from cluster_layer.links import Links
from cluster_layer.members import Group, Member
from cluster_layer.membership_log import MembershipLog
from cluster_layer.memberships import Memberships
from cluster_layer.routing import Routes
from cluster_layer.running import MAX_REDIRECTIONS, Redirected
from topology.errors import ClusterError

if TYPE_CHECKING:
    from cluster_layer.batching import Command

logger = logging.getLogger("cluster_layer")

ACCEPT_AGAIN_S = 0.5


class Registrar:
    """Asks shards, one home at a time; what they publish may come before their answers."""

    def __init__(
        self,
        memberships: Memberships,
        links: Links,
        expiry_ms: int,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._memberships = memberships
        self._links = links
        self._expiry_ms = expiry_ms
        self._spawn = spawn

    async def confirm_all(self, memberships: Iterable[tuple[Group, Member]], epoch: int) -> None:
        """`confirm`, of several at once; raises what says the most of those that failed."""
        await _all(self.confirm(group, member, epoch=epoch) for group, member in memberships)

    async def confirm(
        self, group: Group, member: Member, *, epoch: int, invited: bool = False
    ) -> None:
        """Make a membership known to the shard.

        If that fails, one that was not active before ends, unless it came by an invitation. An
        invitation to what is not stored any more is void.
        """
        member.joining += 1
        try:
            link = self._links.to(group.shard)
            await self._memberships.subscribed(group)
            was_stored, position = await self._take_over(group, member, epoch)
        except BaseException:
            member.joining -= 1
            if member.is_over and not invited:
                self._memberships.remove(group, member)
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
                self._memberships.remove(group, member)  # it has expired, or has been kicked
                channel = member.box.name
                elsewhere = self._memberships.taken_from(group.shard, group.name, channel)
                for other, taken in elsewhere:
                    self._memberships.remove(other, taken)
            return
        member.invited = False
        if not member.active:
            self._activate(group, member, was_stored, position)
        elif member.stored and not was_stored:
            self.serve_again(group, member)

    async def accept(self, group: Group, member: Member) -> Routes | None:
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
                await self.confirm(group, member, epoch=routes.epoch, invited=member.invited)
                return routes
            except Redirected:
                continue  # by a newer topology, which may have other homes
            except ClusterError as error:
                _stays_with_the_senders(group, member, error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
        return None

    def serve_again(self, group: Group, member: Member) -> None:
        """Take over, some time soon, what another process has stored of our member."""
        self._spawn(self._take_over_stored(group, member))

    async def quit(self, name: str, box: Mailbox) -> Sequence[str]:
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

    # -- internals

    async def _quit_at(self, shard: str, name: str, box: Mailbox, routes: Routes) -> None:
        copied = routes.needs_tombstone(name, shard)

        def build(keys: Keys) -> tuple[tuple[bytes, ...], Command]:
            return (keys.members(name),), (box.name, self._expiry_ms, int(copied))

        await self._links.to(shard).run(scripts.GROUP_QUIT, routes.epoch, build)

    async def _hear_of(self, group: Group, member: Member) -> None:
        """Drop what would continue here, if it has been kicked here, before we were subscribed."""
        await self._memberships.subscribed(group)
        link, channel = self._links.to(group.shard), member.box.name
        connection = await link.ready()
        score = await connection.execute(("ZSCORE", link.keys.members(group.name), channel))
        never = score is None and self._links.routes.is_prepared  # else there is a tombstone
        if not never and float(score or 0) <= 0:
            changes = await MembershipLog(link).of([group])
            latest = [change for change in changes if change.channel == channel][-1:]
            if any(change.op == "leave" for change in latest):
                self._memberships.remove(group, member)

    def _activate(self, group: Group, member: Member, was_stored: bool, position: int) -> None:
        """The shard has answered to a new member; controls may have come before the answer."""
        if not member.since or member.kicked_at > member.since:  # else it has been one since then
            member.since = position
            group.latest_since = max(group.latest_since, position)
        if member.kicked_at > member.joined_at:
            if not member.joining:
                self._memberships.remove(group, member)
            return
        if was_stored:
            member.stored = True  # until the control arrives, which makes it active
            return
        member.active = True
        if member.stored_at <= position:
            member.stored = False  # it was removed again before the join
        elif member.stored:
            self.serve_again(group, member)

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
            member.origin = (life_of(self._links, group.shard), position)
        if member.stored and position >= 0 and member.stored_at > position:
            self.serve_again(group, member)  # it has been stored once more since then
        elif member.stored and position >= 0 and member.taken_at <= member.stored_at:
            # Nothing is stored any more, and no control said so: the membership has expired, or was
            # ended by its own leave. Senders have served what was published up to here.
            member.since = max(member.since, position)
            group.latest_since = max(group.latest_since, position)
            member.stored = False
            member.active = True
            group.changed()
        elif member.is_over:
            self._memberships.remove(group, member)  # it was kicked, and nobody has stored it since


def life_of(links: Links, shard: str) -> str:
    """The incarnation of a shard; empty if it is none any more, or was never reached."""
    with contextlib.suppress(Redirected):
        return links.to(shard).keys.incarnation
    return ""


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
