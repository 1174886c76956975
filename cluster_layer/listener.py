"""What is heard of members from their shards: changes that others have made, kicks, new lives."""

from __future__ import annotations

from cluster_layer.controls import LogEntry
from cluster_layer.links import Links
from cluster_layer.members import Group, Member
from cluster_layer.memberships import Memberships
from cluster_layer.registrar import Registrar, life_of


class Listener:
    """Changes the table by what is heard, in whatever order it comes."""

    def __init__(self, memberships: Memberships, registrar: Registrar, links: Links) -> None:
        self._memberships = memberships
        self._registrar = registrar
        self._links = links

    def on_change(self, shard: str, change: LogEntry) -> None:
        """A membership was changed on the shard, by another process or by a take-over."""
        op, position = change.op, change.position
        group = self._memberships.on[shard].get(change.group)
        member = group.members.get(change.channel) if group else None
        if group is None or member is None or change.epoch <= group.known:
            return  # the last: it is from before this home was one
        group.changed()
        if op == "stored" and position > member.since:
            member.stored = True
            member.stored_at = position
            if not member.joining and position > member.joined_at:
                self._registrar.serve_again(group, member)
        elif op == "unstored" and position >= member.since:
            member.stored = False
            member.active = True
            member.unstored_at = position
        elif op == "leave":
            self._kicked(group, member, position)
            self._end_elsewhere(shard, change, life_of(self._links, shard))

    def on_kick(self, shard: str, kick: LogEntry, life: str) -> None:
        """Another process has removed a member; this came by the inbox, out of order.

        The control on the group's channel comes in order, unless the shard dies before: then this
        is what keeps the member from coming back in the shard's next life, or at another home.
        """
        position = kick.position
        group = self._memberships.on[shard].get(kick.group)
        member = group.members.get(kick.channel) if group else None
        if group is None or member is None or kick.epoch <= group.known:
            # The shard was lost, or the slot has moved.
            self._end_elsewhere(shard, kick, life)
            return
        joined_in, joined_at = member.origin
        current = life_of(self._links, shard)
        if life == current:
            member.notice = (life, position)
        elif joined_in not in ("", current) and not (life == joined_in and position <= joined_at):
            self._memberships.remove(group, member)

    def on_incarnation(self, shard: str, life: str) -> None:
        """The shard began blank: what was stored there is gone, positions begin anew.

        What others have done there since will be learnt from its log. A join that was answered in
        this life, before its log could be read, keeps its position there.
        """
        for group in list(self._memberships.on[shard].values()):
            group.changed()
            group.latest_since = 0
            for member in list(group.members.values()):
                joined_in, joined_at = member.origin
                if member.was_kicked:
                    self._memberships.remove(group, member)  # and nobody lived to publish it
                # One that joins is none yet; one that was stored is nowhere but here.
                member.active = member.active or member.stored
                member.stored = False
                member.kicked_at = member.stored_at = 0
                member.taken_at = member.unstored_at = 0
                here = joined_at if joined_in == life else 0
                if member.joined_at != here:
                    member.joined_at = member.since = here
                group.latest_since = max(group.latest_since, member.since)

    # -- internals

    def _kicked(self, group: Group, member: Member, position: int) -> None:
        member.stored = False
        member.kicked_at = position
        if member.since < position <= member.joined_at:
            member.since = member.joined_at  # it has come back after that
            group.latest_since = max(group.latest_since, member.since)
        if position > member.joined_at:
            member.active = False
            if not member.joining:  # else the answer tells which came first
                self._memberships.remove(group, member)

    def _end_elsewhere(self, shard: str, kick: LogEntry, life: str) -> None:
        """A kick counts for where the member was taken along to, if its writer did not know that.

        One that knew has kicked there as well, and that is heard in order with the messages there.
        """
        for group, member in self._memberships.taken_from(shard, kick.group, kick.channel):
            _, joined_in, joined_at = member.came_from or ("", "", 0)
            later = life != joined_in or kick.position > joined_at
            if kick.epoch < group.home_since and later:
                member.active = False
                group.changed()
                if member.continues:
                    self._memberships.remove(group, member)
                member.came_from = None  # if it joins by itself, it comes back by that
