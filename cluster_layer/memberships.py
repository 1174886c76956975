"""The table of this process's groups and members, shard by shard; what is in it is subscribed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from cluster_layer.buffers import Mailbox
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.links import Links
from cluster_layer.members import Group, Member
from cluster_layer.running import Redirected
from cluster_layer.subscriber import Subscriber


class Memberships:
    """A process is subscribed to a group on a shard while it has a member of it there."""

    def __init__(
        self,
        links: Links,
        subscriber_of: Callable[[str], Subscriber | None],
        context_of: Callable[[str], bytes],
    ) -> None:
        """`subscriber_of(shard)` is None for a shard that is none any more."""
        self.on: defaultdict[str, dict[str, Group]] = defaultdict(dict)  # shard -> name -> group
        self.context_of = context_of
        self._links = links
        self._subscriber_of = subscriber_of
        self._loop = asyncio.get_running_loop()

    def adopt(self, previous: Memberships) -> None:
        """Go on with the memberships of another loop, before anything is subscribed here."""
        for old in previous.groups():
            group = self.on[old.shard][old.name] = Group(
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
                    self.remove(group, member)

    # -- looking

    def names(self) -> set[str]:
        return {name for groups in self.on.values() for name in groups}

    def groups(self) -> list[Group]:
        return [group for groups in self.on.values() for group in groups.values()]

    def channels(self, shard: str, name: str) -> Collection[str]:
        """The members of a group at this home, by name."""
        group = self.on[shard].get(name)
        return () if group is None else group.members.keys()

    def of(self, name: str, channel: str) -> list[tuple[Group, Member]]:
        """What a channel is in a group, home by home."""
        groups = [groups[name] for groups in self.on.values() if name in groups]
        return [(group, group.members[channel]) for group in groups if channel in group.members]

    def taken_from(self, shard: str, name: str, channel: str) -> list[tuple[Group, Member]]:
        """What a member is at the homes to which it was taken along from this one."""
        return [
            (group, member)
            for group, member in self.of(name, channel)
            if member.came_from is not None and member.came_from[0] == shard
        ]

    # -- entering and removing

    def enter(self, shard: str, name: str, box: Mailbox, expires_at: float) -> tuple[Group, Member]:
        """The membership of a channel at this home; a new one is not active yet."""
        group = self.on[shard].get(name)
        if group is None:
            group = self.on[shard][name] = Group(name, shard, self.context_of(name), settled=True)
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

    def remove(self, group: Group, member: Member) -> None:
        """End a membership, if it has not ended; a group without members is unsubscribed."""
        name, channel = group.name, member.box.name
        if group.members.get(channel) is not member:
            return
        del group.members[channel]
        group.changed()
        if not self.of(name, channel):
            member.box.groups.discard(name)
        if not group.members and self.on[group.shard].get(name) is group:
            del self.on[group.shard][name]
            self.unsubscribe(group.shard, name)

    def leave_home(self, group: Group) -> None:
        """Serve a group no more at what is no home of it any more."""
        del self.on[group.shard][group.name]
        self.unsubscribe(group.shard, group.name)
        for channel, member in group.members.items():
            if not self.of(group.name, channel):
                member.box.groups.discard(group.name)
        group.members.clear()

    # -- subscriptions

    async def subscribed(self, group: Group) -> None:
        """Return once the shard has confirmed the group's subscription."""
        if not group.is_subscribing:
            group.subscribed = self._loop.create_task(self._subscribe(group.shard, [group]))
        task = group.subscribed
        if task is not None and not task.done():
            await asyncio.shield(task)

    async def all_subscribed(self, shard: str, groups: Sequence[Group]) -> None:
        """The same for several groups of a shard, with one command for those that are not yet."""
        fresh = [group for group in groups if not group.is_subscribing]
        if fresh:
            task = self._loop.create_task(self._subscribe(shard, fresh))
            for group in fresh:
                group.subscribed = task
        for group in groups:
            await self.subscribed(group)

    def unsubscribe(self, shard: str, name: str) -> None:
        subscriber = self._subscriber_of(shard)
        if subscriber is not None:
            subscriber.unsubscribe(name)

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
            if group.name not in self.on[shard]:  # left meanwhile
                subscriber.unsubscribe(group.name)
