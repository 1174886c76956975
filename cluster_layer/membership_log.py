"""What a shard's log says of groups that have got their home there."""

from __future__ import annotations

from collections.abc import Sequence

from cluster_layer.controls import LogEntry, log_entry
from cluster_layer.links import Link
from cluster_layer.members import Group


class MembershipLog:
    """Reads the log of one shard; what has been read of it is kept."""

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
