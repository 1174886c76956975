"""Everything that is written to shards: one script per verb, on the home of its name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgpack

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters
from cluster_layer.crypto import Cipher, channel_context, group_context
from cluster_layer.envelope import CONTROL, MESSAGE, encode
from cluster_layer.errors import ChannelFull, DeliveryUnknown
from cluster_layer.keys import Keys
from cluster_layer.links import Links
from cluster_layer.names import inbox_name, is_process_specific
from cluster_layer.order import GROUP, INBOX, UNKNOWN, Lane, Lanes, Trail
from cluster_layer.writes import Append, Publish, Push, Write
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")


class TrailCell:
    """Carries a task's trail into a write, perhaps on another loop, and back."""

    __slots__ = ("trail",)

    def __init__(self, trail: Trail) -> None:
        self.trail = trail


def control(op: str, group: str, channel: str) -> bytes:
    """The envelope of a membership control."""
    return encode(
        CONTROL, 0, None, None, msgpack.packb({"op": op, "group": group, "channel": channel})
    )


class Writer:
    """Writes messages and memberships; belongs to one loop. Bodies come encoded, not sealed."""

    def __init__(
        self,
        links: Links,
        counters: Counters,
        cipher: Cipher | None,
        capacity_of: Callable[[str], int],
        expiry_ms: int,
    ) -> None:
        self._links = links
        self._counters = counters
        self._cipher = cipher
        self._prefix = links.settings.prefix
        self._capacity_of = capacity_of
        self._expiry_ms = expiry_ms
        self._loop = asyncio.get_running_loop()
        self._inbox_lanes = Lanes(INBOX)
        self._group_lanes = Lanes(GROUP)

    async def send(self, channel: str, body: bytes, cell: TrailCell) -> None:
        """Append to a channel. ChannelFull, ShardUnavailable: not sent. DeliveryUnknown."""
        if cell.trail.uncertain and is_process_specific(channel):
            await self.make_certain(cell)
        await self._carry_out(self.message(channel, body, cell.trail), cell)

    async def group_send(self, group: str, body: bytes, cell: TrailCell) -> None:
        """Publish to a group's subscribers and send to the members that none of them serves.

        ShardUnavailable: nobody gets it. DeliveryUnknown. What a single member of the second kind
        does not get is counted, not raised.
        """
        if cell.trail.uncertain:
            await self.make_certain(cell)
        write = self.publication(group, body, cell.trail)
        await self._carry_out(write, cell)
        if write.members:
            await self.send_to_members(write.members, body, cell)

    async def send_to_members(self, members: Sequence[str], body: bytes, cell: TrailCell) -> None:
        """Send a group's message to the members that no subscriber serves."""
        await asyncio.gather(*(self._send_to_member(name, body, cell) for name in members))

    def message(self, channel: str, body: bytes, trail: Trail) -> Append | Push:
        """The write that a send is, after what its task has written before."""
        cipher = self._cipher
        if cipher is not None:
            body = cipher.seal(body, channel_context(self._prefix, channel))
        if is_process_specific(channel):
            return self._appending(channel, body, MESSAGE, trail)
        shard = self._links.routes.shard_of(channel)
        envelope = encode(MESSAGE, self._expiry_ms, None, None, body)
        return Push(channel, shard, self._capacity_of(channel), self._expiry_ms, envelope)

    def publication(self, group: str, body: bytes, trail: Trail) -> Publish:
        """The write that a group_send is, after what its task has written before."""
        cipher = self._cipher
        sealed = cipher.seal(body, group_context(self._prefix, group)) if cipher else body
        lane = self._group_lanes[self._links.routes.shard_of(group)]
        marks = trail.marks(lane, self._loop.time(), self._expiry_ms / 1000)
        envelope = encode(MESSAGE, self._expiry_ms, None, marks, sealed)
        return Publish(group, lane, envelope, body)

    async def store_member(self, group: str, channel: str, expiry_ms: int) -> None:
        """Add a member that this process does not serve. ShardUnavailable, DeliveryUnknown."""
        stored = control("stored", group, channel)

        def build(keys: Keys, fence_ms: int) -> tuple[Sequence[bytes], Command]:
            return (
                (keys.members(group), keys.seq, keys.log),
                (channel, expiry_ms, fence_ms, keys.group(group), stored),
            )

        link = self._links.to(self._links.routes.shard_of(group))
        await link.run(scripts.GROUP_STORE, build)
        if is_process_specific(channel):
            # Only a membership that its process has taken over survives a restart of the shard and
            # ends with the process. Until then senders send to the member one by one.
            await self._tell(channel, {"op": "join", "group": group})

    async def remove_member(self, group: str, channel: str, expiry_ms: int) -> None:
        """Remove a member that another process serves. ShardUnavailable, DeliveryUnknown."""
        leave = control("leave", group, channel)

        def build(keys: Keys, _fence_ms: int) -> tuple[Sequence[bytes], Command]:
            return (
                (keys.members(group), keys.seq, keys.log),
                (channel, expiry_ms, keys.group(group), leave),
            )

        link = self._links.to(self._links.routes.shard_of(group))
        position = await link.run(scripts.GROUP_LEAVE, build)
        if is_process_specific(channel):
            # The shard may die before its subscribers hear of it, and they would come back as
            # members of its next life.
            life = link.keys.incarnation
            kick = {"op": "kick", "group": group, "life": life, "position": str(position)}
            await self._tell(channel, kick)

    # -- internals

    def _appending(self, channel: str, body: bytes, kind: int, trail: Trail) -> Append:
        lane = self._inbox_lanes[self._links.routes.shard_of(inbox_name(channel))]
        marks = trail.marks(lane, self._loop.time(), self._expiry_ms / 1000)
        envelope = encode(kind, self._expiry_ms, channel, marks, body)
        return Append(channel, lane, self._capacity_of(channel), self._expiry_ms, envelope)

    async def _carry_out(self, write: Write, cell: TrailCell) -> None:
        """Run a write's script and note in the trail where it wrote."""
        link = self._links.to(write.shard)
        lane = write.lane
        try:
            reply = await link.run(write.script, write.build)
        except asyncio.CancelledError:
            if lane is not None:
                self._note(cell, lane, UNKNOWN)
            raise
        except DeliveryUnknown:
            if lane is not None:
                self._note(cell, lane, await self.settled_position(lane))
            raise
        position = write.accepted(reply, self._counters)
        if lane is not None and position is not None:
            now = self._loop.time()
            cell.trail = cell.trail.after(lane, link.keys.incarnation, position, now)

    async def settled_position(self, lane: Lane) -> int:
        """A position that a write of unknown outcome is not beyond, now that it is settled."""
        link = self._links.to(lane.shard)
        if link.connection is not None:
            counter = link.keys.seq if lane.kind == GROUP else link.keys.entries
            with contextlib.suppress(ClusterError):
                return int(await link.connection.execute(("GET", counter)) or 0)
        return UNKNOWN

    async def make_certain(self, cell: TrailCell) -> None:
        """Find out how far cancelled writes can have come, before something follows them.

        A shard that can't be asked stays unknown.
        """
        for lane in cell.trail.uncertain_lanes():
            position = await self.settled_position(lane)
            if position != UNKNOWN:
                self._note(cell, lane, position)

    def _note(self, cell: TrailCell, lane: Lane, position: int) -> None:
        incarnation = self._links.to(lane.shard).keys.incarnation
        cell.trail = cell.trail.after(lane, incarnation, position, self._loop.time())

    async def _send_to_member(self, channel: str, body: bytes, cell: TrailCell) -> None:
        try:
            await self.send(channel, body, cell)
        except ChannelFull:
            self._counters.lose(Loss.FULL)
        except ClusterError as error:
            self._counters.lose(Loss.UNAVAILABLE)
            logger.info("a group message did not reach member %s: %s", channel, error)

    async def _tell(self, channel: str, control: dict[str, str]) -> None:
        """Send a control to the process that serves a channel; what it is for can do without."""
        try:
            body = msgpack.packb(control)
            await self._carry_out(
                self._appending(channel, body, CONTROL, Trail()), TrailCell(Trail())
            )
        except ClusterError as error:
            logger.info("%s was not told %s: %s", channel, control, error)
