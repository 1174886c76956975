"""Takes groups along to the homes that they get, and settles them there."""

from __future__ import annotations

from collections.abc import Sequence

from cluster_layer.links import Links
from cluster_layer.listener import Listener
from cluster_layer.members import Group, Member
from cluster_layer.membership_log import MembershipLog
from cluster_layer.memberships import Memberships
from cluster_layer.registrar import Registrar

# Groups that are asked about at once when thousands get a new home.
SETTLE_BATCH = 500


class Relocation:
    """Follows the topology: `follow` decides without waiting, `settle` tells the shards."""

    def __init__(
        self, memberships: Memberships, registrar: Registrar, listener: Listener, links: Links
    ) -> None:
        self._memberships = memberships
        self._registrar = registrar
        self._listener = listener
        self._links = links

    def follow(self, known: int) -> None:
        """Serve every group at the homes that it has now, and nowhere else; see `settle`.

        `known` is the epoch that was gone by until now.
        """
        routes, on = self._links.routes, self._memberships.on
        # An epoch was missed, in which the other home may have been none: begin there anew.
        anew = routes.is_prepared and known < routes.topology.homes_since
        homes_of = routes.homes_of
        moving = {
            name: homes
            for shard, groups in on.items()
            for name in groups
            if (homes := homes_of(name)) != (shard,)
        }
        for name, homes in moving.items():
            here, *others = homes
            for shard in others if anew and name in on[here] else ():
                if name in on[shard]:
                    self._memberships.leave_home(on[shard][name])
            present = [groups[name] for groups in on.values() if name in groups]
            for shard in homes:
                if name not in on[shard]:
                    self._take_along(shard, name, present, known)
            for group in present:
                if group.shard not in homes:
                    self._memberships.leave_home(group)

    async def settle(self) -> None:
        """Return when the shards know of every member at every home. ClusterError: not yet."""
        on = self._memberships.on
        for shard in list(on):
            unsettled = [group for group in on[shard].values() if not group.settled]
            if not unsettled:
                continue
            changes = MembershipLog(self._links.to(shard))
            for start in range(0, len(unsettled), SETTLE_BATCH):
                await self._settle(shard, unsettled[start : start + SETTLE_BATCH], changes)

    # -- internals

    def _take_along(self, shard: str, name: str, present: Sequence[Group], known: int) -> None:
        """Give a group another home, with the members that it has.

        They are active there only when it is known what others have done there before us.
        """
        home_since = max(known + 1, self._links.routes.topology.homes_since)
        context = self._memberships.context_of(name)
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
            self._memberships.on[shard][name] = group

    async def _settle(self, shard: str, groups: Sequence[Group], changes: MembershipLog) -> None:
        await self._memberships.all_subscribed(shard, groups)
        # What others did here before we were subscribed was never heard of.
        for change in await changes.of(groups):
            self._listener.on_change(shard, change)
        link, epoch = self._links.to(shard), self._links.routes.epoch
        connection = await link.ready()
        names = [link.keys.members(group.name) for group in groups]
        replies = await connection.execute(*(("EXISTS", name) for name in names))
        for group, exists in zip(groups, replies if len(groups) > 1 else (replies,), strict=True):
            members = list(group.members.values())
            unknown = [m for m in members if exists or not (m.active or m.came_from)]
            asked = [member for member in unknown if not member.invited]
            await self._registrar.confirm_all([(group, member) for member in asked], epoch)
            for member in group.members.values():
                member.active = member.active or (member.came_from is not None and not exists)
            group.changed()
            group.settled = True
