"""Everything that is written to shards: one script per verb, on the home of its name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.buffers import Loss
from cluster_layer.controls import control, pack
from cluster_layer.counters import Counters
from cluster_layer.crypto import Cipher, channel_context, group_context
from cluster_layer.envelope import CONTROL, MESSAGE, encode, fingerprint
from cluster_layer.errors import ChannelFull, DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import MAX_REDIRECTIONS, Build, Link, Links, Redirected
from cluster_layer.names import inbox_name, is_process_specific
from cluster_layer.order import GROUP, INBOX, Lane, Trail
from cluster_layer.routing import Routes
from cluster_layer.scripts import Script
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")


class TrailCell:
    """Carries a task's trail into a write, perhaps on another loop, and back."""

    __slots__ = ("trail",)

    def __init__(self, trail: Trail) -> None:
        self.trail = trail


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

    def send(self, channel: str, body: bytes, cell: TrailCell) -> Coroutine[Any, Any, None]:
        """Append to a channel. ChannelFull, ShardUnavailable: not sent. DeliveryUnknown."""
        if is_process_specific(channel):
            return self._append(channel, self._sealed(body, channel), MESSAGE, cell)
        return self._push(channel, self._sealed(body, channel))

    async def group_send(self, group: str, body: bytes, cell: TrailCell) -> None:
        """Publish to a group's subscribers and send to the members that none of them serves.

        ShardUnavailable: nobody gets it. DeliveryUnknown. What a single member of the second kind
        does not get is counted, not raised.
        """
        cipher = self._cipher
        sealed = cipher.seal(body, group_context(self._prefix, group)) if cipher else body
        for _ in range(MAX_REDIRECTIONS):
            try:
                reply = await self._publish(group, sealed, cell)
                break
            except Redirected:
                continue
        else:
            raise self._links.restless(group)
        if len(reply) > 1:
            names = [name.decode() for name in reply[1:]]
            await asyncio.gather(*(self._send_to_member(name, body, cell) for name in names))

    async def store_member(self, group: str, channel: str, expiry_ms: int) -> None:
        """Add a member that this process does not serve. ShardUnavailable, DeliveryUnknown."""

        def build(keys: Keys, epoch: int, **_copied: bool) -> tuple[Sequence[bytes], Command]:
            stored = control("stored", group, channel, epoch)
            return (
                (keys.members(group), keys.seq, keys.log),
                (keys.group(group), 0, channel, expiry_ms, stored),
            )

        await self._at_all_homes(group, scripts.GROUP_STORE, build)
        if is_process_specific(channel):
            # Only a membership that its process has taken over survives a restart of the shard and
            # ends with the process. Until then senders send to the member one by one.
            await self._tell(channel, {"op": "join", "group": group})

    async def remove_member(self, group: str, channel: str, expiry_ms: int) -> None:
        """Remove a member that another process serves. ShardUnavailable, DeliveryUnknown."""

        def build(keys: Keys, epoch: int, *, copied: bool) -> tuple[Sequence[bytes], Command]:
            leave = control("leave", group, channel, epoch)
            return (
                (keys.members(group), keys.seq, keys.log),
                (channel, expiry_ms, keys.group(group), leave, int(copied)),
            )

        removed = await self._at_all_homes(group, scripts.GROUP_LEAVE, build)
        if is_process_specific(channel):
            # A shard may die before its subscribers hear of it, and they would come back as
            # members of its next life.
            for shard, life, position, epoch in removed:
                place = {"shard": shard, "life": life, "position": str(position)}
                kick = {"op": "kick", "group": group, **place, "epoch": str(epoch)}
                await self._tell(channel, kick)

    # -- internals

    def _sealed(self, body: bytes, channel: str) -> bytes:
        if self._cipher is None:
            return body
        return self._cipher.seal(body, channel_context(self._prefix, channel))

    async def _at_all_homes(
        self, group: str, script: Script, build: Callable[..., tuple[Sequence[bytes], Command]]
    ) -> list[tuple[str, str, Any, int]]:
        """Run a script at every home of a group: (shard, its life, reply, epoch) for each.

        `build(keys, epoch, copied=...)`: whether memberships may yet be copied to that shard.
        """
        for _ in range(MAX_REDIRECTIONS):
            done: list[tuple[str, str, Any, int]] = []
            routes = self._links.routes
            try:
                for shard in routes.homes_of(group):
                    link = self._links.to(shard)
                    copied = routes.needs_tombstone(group, shard)
                    by_routes = partial(build, epoch=routes.epoch, copied=copied)
                    reply = await link.run(script, routes.epoch, by_routes)
                    done.append((shard, link.keys.incarnation, reply, routes.epoch))
                return done
            except Redirected:
                continue
            except ShardUnavailable as error:
                if done:  # at one home it has happened
                    raise DeliveryUnknown(error.shard, error.reason) from error
                raise
        raise self._links.restless(group)

    async def _append(self, channel: str, body: bytes, kind: int, cell: TrailCell) -> None:
        inbox = inbox_name(channel)
        capacity = self._capacity_of(channel)

        def position(reply: Any) -> int | None:
            return int(reply[1]) if reply[0] else None

        for _ in range(MAX_REDIRECTIONS):
            if cell.trail.uncertain:
                await self._make_certain(cell, cell.trail.uncertain_lanes())
            routes = self._links.routes
            lane = Lane(routes.shard_of(inbox), INBOX)
            now = self._loop.time()
            marks = cell.trail.marks(lane, now, self._expiry_ms / 1000, routes.epoch)
            envelope = encode(kind, self._expiry_ms, channel, marks, body)
            build = partial(_appending, inbox, (capacity, self._expiry_ms, envelope))
            written = ("", envelope)
            try:
                reply = await self._write(
                    routes, lane, cell, scripts.INBOX_APPEND, build, position, written
                )
                break
            except Redirected:
                continue
        else:
            raise self._links.restless(inbox)
        self._check_accepted(channel, capacity, lane.shard, reply)

    async def _publish(self, group: str, sealed: bytes, cell: TrailCell) -> Any:
        if cell.trail.uncertain:
            await self._make_certain(cell, cell.trail.uncertain_lanes())
        routes = self._links.routes
        lane = Lane(routes.shard_of(group), GROUP)
        now = self._loop.time()
        marks = cell.trail.marks(lane, now, self._expiry_ms / 1000, routes.epoch)
        envelope = encode(MESSAGE, self._expiry_ms, None, marks, sealed)

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            return (keys.members(group), keys.seq), (keys.group(group), envelope)

        written = (group, envelope)
        reply = await self._write(
            routes, lane, cell, scripts.GROUP_SEND, build, lambda reply: reply[0], written
        )
        self._counters.shards[lane.shard].published += 1
        return reply

    async def _push(self, channel: str, body: bytes) -> None:
        capacity = self._capacity_of(channel)
        envelope = encode(MESSAGE, self._expiry_ms, None, None, body)

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            return (keys.queue(channel),), (capacity, self._expiry_ms, envelope)

        shard, reply = await self._links.run_at_home(channel, scripts.QUEUE_PUSH, build)
        self._check_accepted(channel, capacity, shard, reply)

    def _check_accepted(self, channel: str, capacity: int, shard: str, reply: Any) -> None:
        accepted, depth, expired = reply
        if expired:
            self._counters.lose(Loss.EXPIRED, expired)
        if not accepted:
            raise ChannelFull(channel, depth, capacity)
        self._counters.shards[shard].sent += 1

    async def _write(
        self,
        routes: Routes,
        lane: Lane,
        cell: TrailCell,
        script: Script,
        build: Build,
        position: Callable[[Any], int | None],
        written: tuple[str, bytes],
    ) -> Any:
        """Run a script and note in the trail where it wrote, or what it may have written."""
        link = self._links.to(lane.shard)
        try:
            reply = await link.run(script, routes.epoch, build)
        except asyncio.CancelledError:
            self._doubt(cell, link, lane, fingerprint(*written), routes.epoch)
            raise
        except DeliveryUnknown:
            self._doubt(cell, link, lane, fingerprint(*written), routes.epoch)
            await self._make_certain(cell, (lane,))
            raise
        at = position(reply)
        if at is not None:
            life, now = link.keys.incarnation, self._loop.time()
            cell.trail = cell.trail.after(lane, life, at, now, routes.epoch)
        return reply

    async def _settled_position(self, link: Link, lane: Lane) -> int | None:
        """A position that a write of unknown outcome is not beyond, now that it is settled."""
        if link.connection is not None:
            counter = link.keys.seq if lane.kind == GROUP else link.keys.entries
            with contextlib.suppress(ClusterError):
                return int(await link.connection.execute(("GET", counter)) or 0)
        return None

    async def _make_certain(self, cell: TrailCell, lanes: Iterable[Lane]) -> None:
        """Find out how far writes of unknown outcome can have come, before something follows them.

        About a shard that can't be asked, or is none any more, the doubt remains.
        """
        for lane in lanes:
            routes = self._links.routes
            if lane.shard not in routes.endpoints():
                continue
            link = self._links.to(lane.shard)
            position = await self._settled_position(link, lane)
            if position is not None:
                life, now = link.keys.incarnation, self._loop.time()
                cell.trail = cell.trail.after(lane, life, position, now, routes.epoch)

    def _doubt(self, cell: TrailCell, link: Link, lane: Lane, fingerprint: int, epoch: int) -> None:
        life, now = link.keys.incarnation, self._loop.time()
        cell.trail = cell.trail.in_doubt(lane, life, fingerprint, now, epoch)

    async def _send_to_member(self, channel: str, body: bytes, cell: TrailCell) -> None:
        try:
            await self.send(channel, body, cell)
        except ChannelFull:
            self._counters.lose(Loss.FULL)
        except ClusterError as error:
            self._counters.lose(Loss.UNAVAILABLE)
            logger.info("a group message did not reach member %s: %s", channel, error)

    async def _tell(self, channel: str, fields: dict[str, str]) -> None:
        """Send a control to the process that serves a channel; what it is for can do without."""
        try:
            await self._append(channel, pack(fields), CONTROL, TrailCell(Trail()))
        except ClusterError as error:
            logger.info("%s was not told %s: %s", channel, fields, error)


def _appending(inbox: str, arguments: Command, keys: Keys) -> tuple[Sequence[bytes], Command]:
    return (keys.inbox(inbox), keys.entries), arguments
