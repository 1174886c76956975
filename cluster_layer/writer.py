"""Everything that is written to shards: one script per verb, on the home of its name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.buffers import Loss
from cluster_layer.controls import control, pack
from cluster_layer.counters import Counters
from cluster_layer.crypto import Cipher, channel_context, group_context
from cluster_layer.envelope import CONTROL, MESSAGE, encode
from cluster_layer.errors import ChannelFull, DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.lanes import GROUP, INBOX, Lane, Lanes
from cluster_layer.marks import Trail
from cluster_layer.names import inbox_name, is_process_specific, process_of
from cluster_layer.routing import Routes
from cluster_layer.running import MAX_REDIRECTIONS, Homes, Redirected, Runner
from cluster_layer.scripts import Script
from cluster_layer.terms import USUAL, Terms
from cluster_layer.writes import Append, Publish, Push, Write
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")

HEARD_CHECK_S: Final = 0.05
MAX_PLACES: Final = 4_096  # of channels that were written to lately


class TrailCell:
    """Carries a task's trail into a write, perhaps on another loop, and back."""

    __slots__ = ("trail",)

    def __init__(self, trail: Trail) -> None:
        self.trail = trail


class Writer:
    """Writes messages and memberships; belongs to one loop, or to one thread at a time.

    Bodies come encoded, not sealed.
    """

    def __init__(
        self,
        links: Homes[Any],
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
        self._inbox_lanes = Lanes(INBOX)
        self._group_lanes = Lanes(GROUP)
        self._places: dict[str, tuple[str, Lane, int]] = {}
        self._places_by: Routes | None = None

    async def send(self, channel: str, body: bytes, cell: TrailCell, terms: Terms = USUAL) -> None:
        """Append to a channel. ChannelFull, ShardUnavailable: not sent. DeliveryUnknown."""
        for _ in range(MAX_REDIRECTIONS):
            if cell.trail.uncertain and is_process_specific(channel):
                await self.make_certain(cell, cell.trail.uncertain_lanes())
            try:
                await self._carry_out(self.message(channel, body, cell.trail, terms), cell)
                return
            except Redirected:
                continue
        raise self._links.restless(inbox_name(channel))

    async def group_send(
        self, group: str, body: bytes, cell: TrailCell, terms: Terms = USUAL
    ) -> None:
        """Publish to a group's subscribers and send to the members that none of them serves.

        ShardUnavailable: nobody gets it. DeliveryUnknown. What a single member of the second kind
        does not get is counted, not raised.
        """
        for _ in range(MAX_REDIRECTIONS):
            if cell.trail.uncertain:
                await self.make_certain(cell, cell.trail.uncertain_lanes())
            write = self.publication(group, body, cell.trail, terms)
            try:
                await self._carry_out(write, cell)
                break
            except Redirected:
                continue
        else:
            raise self._links.restless(group)
        if write.members:
            await self.send_to_members(write, cell)

    async def send_to_members(self, write: Publish, cell: TrailCell) -> None:
        """Send a group's message to the members that no subscriber serves."""
        await self._links.together(
            [self._send_to_member(name, write, cell) for name in write.members]
        )

    def message(
        self, channel: str, body: bytes, trail: Trail, terms: Terms = USUAL
    ) -> Append | Push:
        """The write that a send is, after what its task has written before."""
        cipher = self._cipher
        sealed = cipher.seal(body, channel_context(self._prefix, channel)) if cipher else body
        if is_process_specific(channel):
            return self._appending(channel, sealed, body, MESSAGE, trail, terms)
        routes = self._links.routes
        shard = routes.shard_of(channel)
        expiry_ms = terms.expiry_ms or self._expiry_ms
        envelope = encode(MESSAGE, expiry_ms, None, None, sealed)
        capacity = self._capacity_of(channel)
        return Push(channel, shard, routes.epoch, capacity, expiry_ms, envelope, body, terms)

    def publication(self, group: str, body: bytes, trail: Trail, terms: Terms = USUAL) -> Publish:
        """The write that a group_send is, after what its task has written before."""
        cipher = self._cipher
        sealed = cipher.seal(body, group_context(self._prefix, group)) if cipher else body
        routes = self._links.routes
        lane = self._group_lanes[routes.shard_of(group)]
        marks = trail.marks(lane, monotonic(), self._expiry_ms / 1000, routes.epoch)
        since = trail.epoch_of(marks) if marks else 0
        expiry_ms = terms.expiry_ms or self._expiry_ms
        envelope = encode(MESSAGE, expiry_ms, None, marks, sealed, terms.exclude, since)
        return Publish(group, lane, routes.epoch, envelope, body, terms)

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
        """Remove a member that another process serves. ShardUnavailable, DeliveryUnknown.

        The latter also if its process lives and is not connected to a home of the group: it may be
        connected to another primary of that shard, where nobody has removed the member.
        """

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
            await self._heard(channel, {shard: life for shard, life, _, _ in removed})

    # -- internals

    def _appending(
        self,
        channel: str,
        sealed: bytes,
        body: bytes,
        kind: int,
        trail: Trail,
        terms: Terms = USUAL,
    ) -> Append:
        routes = self._links.routes
        if routes is not self._places_by or len(self._places) > MAX_PLACES:
            self._places, self._places_by = {}, routes
        place = self._places.get(channel)
        if place is None:
            place = self._places[channel] = self._place_of(channel, routes)
        inbox, lane, capacity = place
        marks = trail.marks(lane, monotonic(), self._expiry_ms / 1000, routes.epoch)
        since = trail.epoch_of(marks) if marks else 0
        expiry_ms = terms.expiry_ms or self._expiry_ms
        envelope = encode(kind, expiry_ms, channel, marks, sealed, epoch=since)
        # By the inbox's expiry, which is that of all its entries, the shard makes room.
        expiry_ms = self._expiry_ms
        return Append(
            channel, inbox, lane, routes.epoch, capacity, expiry_ms, envelope, body, terms
        )

    def _place_of(self, channel: str, routes: Routes) -> tuple[str, Lane, int]:
        """The inbox of a channel, its lane, and the channel's capacity."""
        inbox = inbox_name(channel)
        return inbox, self._inbox_lanes[routes.shard_of(inbox)], self._capacity_of(channel)

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

    async def _carry_out(self, write: Write, cell: TrailCell) -> None:
        """Run a write's script and note in the trail where it wrote, or what it may have written.

        Redirected: look for the home again.
        """
        link = self._links.to(write.shard)
        lane = write.lane
        try:
            reply = await link.run(write.script, write.epoch, write.build, write)
        except DeliveryUnknown:
            if lane is not None:
                self._doubt(cell, link, lane, write)
                await self.make_certain(cell, (lane,))
            raise
        except ClusterError:
            raise
        except BaseException:  # cancelled, or interrupted by a signal
            if lane is not None:
                self._doubt(cell, link, lane, write)
            raise
        position = write.accepted(reply, self._counters)
        if lane is not None and position is not None:
            life, now = link.keys.incarnation, monotonic()
            cell.trail = cell.trail.after(lane, life, position, now, write.epoch)

    async def settled_position(self, lane: Lane) -> tuple[str, int] | None:
        """A life and a position that a write of unknown outcome is not beyond, now it is settled.

        None: the shard does not tell, or is none any more.
        """
        with contextlib.suppress(ClusterError):
            link = self._links.to(lane.shard)
            if link.connection is not None:
                life = link.keys.incarnation
                counter = link.keys.seq if lane.kind == GROUP else link.keys.entries
                return life, int(await link.connection.execute(("GET", counter)) or 0)
        return None

    async def make_certain(self, cell: TrailCell, lanes: Iterable[Lane]) -> None:
        """Find out how far writes of unknown outcome can have come, before something follows them.

        About a shard that can't be asked, or is none any more, the doubt remains.
        """
        for lane in lanes:
            found = await self.settled_position(lane)
            if found is not None:
                epoch = self._links.routes.epoch
                cell.trail = cell.trail.after(lane, *found, monotonic(), epoch)

    def _doubt(self, cell: TrailCell, link: Runner[Any], lane: Lane, write: Write) -> None:
        life, now = link.keys.incarnation, monotonic()
        cell.trail = cell.trail.in_doubt(lane, life, write.fingerprint(), now, write.epoch)

    async def _send_to_member(self, channel: str, write: Publish, cell: TrailCell) -> None:
        try:
            await self.send(channel, write.body, cell, Terms(write.terms.expiry_ms))
        except ChannelFull:
            self._counters.lose(Loss.FULL)
        except ClusterError as error:
            self._counters.lose(Loss.UNAVAILABLE)
            logger.info("a group message did not reach member %s: %s", channel, error)

    async def _tell(self, channel: str, fields: dict[str, str]) -> None:
        """Send a control to the process that serves a channel; what it is for can do without."""
        body = pack(fields)
        try:
            for _ in range(MAX_REDIRECTIONS):
                write = self._appending(channel, body, body, CONTROL, Trail())
                try:
                    await self._carry_out(write, TrailCell(Trail()))
                    return
                except Redirected:
                    continue
        except ClusterError as error:
            logger.info("%s was not told %s: %s", channel, fields, error)

    async def _heard(self, channel: str, homes: Mapping[str, str]) -> None:
        """Return once a channel's process is connected to these lives of shards, or is gone.

        Then it has heard what they have published, or will before it hears what comes later. A
        shard that has left the topology meanwhile does not count; one at least has to be there.
        DeliveryUnknown: it lives and is not connected in time, or nobody can tell.
        """
        process = process_of(channel)
        try:
            async with asyncio.timeout(self._links.settings.timeout_s):
                while not (await self._hears(process, homes) or await self._is_gone(process)):
                    await asyncio.sleep(HEARD_CHECK_S)
        except TimeoutError:
            reason = f"it was removed, but the process of {channel} is not connected there"
            raise DeliveryUnknown(next(iter(homes)), reason) from None

    async def _hears(self, process: str, homes: Mapping[str, str]) -> bool:
        # Whoever follows the topology leaves a shard that was removed, and hears no more of it.
        there = self._links.routes.endpoints()
        homes = {shard: life for shard, life in homes.items() if shard in there}
        asked = (self._is_connected(process, shard, life) for shard, life in homes.items())
        return bool(homes) and all(await asyncio.gather(*asked))

    async def _is_gone(self, process: str) -> bool:
        """Whether every shard says that this process listens to it no more."""
        shards = self._links.routes.endpoints()
        found = await asyncio.gather(*(self._is_connected(process, shard) for shard in shards))
        return all(one is False for one in found)

    async def _is_connected(self, process: str, shard: str, life: str = "") -> bool | None:
        """Whether a process listens to a shard, in this life of it; None: it can't be asked."""
        with contextlib.suppress(ClusterError):
            link = self._links.to(shard)
            connection = await link.ready()
            if link.keys.incarnation != (life or link.keys.incarnation):
                return False
            subscribed = link.keys.cluster.process(process)
            _, listeners = await connection.execute(("PUBSUB", "NUMSUB", subscribed))
            return bool(listeners)
        return None
