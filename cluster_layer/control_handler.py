"""Does what controls say: what other processes want of this one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cluster_layer import answers
from cluster_layer.arrivals import Arrivals
from cluster_layer.buffers import Mailboxes
from cluster_layer.census import answer
from cluster_layer.controls import Control, LogEntry, number
from cluster_layer.groups import Groups
from cluster_layer.links import Links
from cluster_layer.readers import Readers
from cluster_layer.tasks import Tasks
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")


class ControlHandler:
    """Obeys at once, or begins to in a task of its own; belongs to one loop."""

    def __init__(
        self,
        process_id: str,
        links: Links,
        mailboxes: Mailboxes,
        groups: Groups,
        readers: Readers,
        arrivals: Arrivals,
        membership_end: Callable[[], float],
        tasks: Tasks,
    ) -> None:
        """`membership_end()`: when a membership is over that begins now."""
        self._process_id = process_id
        self._links = links
        self._mailboxes = mailboxes
        self._groups = groups
        self._readers = readers
        self._arrivals = arrivals
        self._membership_end = membership_end
        self._tasks = tasks

    def obey(self, control: Control) -> bool:
        """Do what a control says; False: it says nothing that is known."""
        op, group, channel = control.op, control.group, control.channel
        if op == "flush":
            self._tasks.spawn(self._flush(control.lane.shard, control.fields.get("token", "")))
        elif op == "who":
            # A question bears the position of what was published last: it is about the next one.
            served = self._groups.served(control.lane.shard, group, control.position + 1)
            self._tasks.spawn(answer(self._links, self._process_id, control, served))
        elif op == "join" and channel is not None:
            box = self._mailboxes.open(channel)
            self._tasks.spawn(self._groups.accept(group, box, self._membership_end()))
        elif op == "kick" and channel is not None:
            fields = control.fields
            position = number(fields.get("position", ""))
            kick = LogEntry(position, control.epoch, op, group, channel)
            self._groups.on_kick(fields.get("shard", ""), kick, fields.get("life", ""))
        elif op in ("stored", "unstored", "leave"):
            member = control.fields.get("channel", "")
            change = LogEntry(control.position, control.epoch, op, group, member)
            self._groups.on_change(control.lane.shard, change)
        else:
            return False
        return True

    async def _flush(self, shard: str, token: str) -> None:
        """Empty this process of everything that came, or may still come, from a shard."""
        link = self._links.to(shard)
        try:
            if shard in self._readers.inboxes:
                await self._readers.inboxes[shard].skip_to_end()
            self._arrivals.clear()
            self._mailboxes.clear()
            self._groups.clear(shard)
            connection = await link.ready()
            await answers.give(connection, link.keys.reply(token), self._process_id)
        except ClusterError as error:
            logger.info("shard %s: a flush could not be confirmed: %s", shard, error)
