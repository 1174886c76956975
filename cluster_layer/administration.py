"""The shards as whoever runs a cluster sees them: the port ``Cluster`` over real servers.

Everything works on all prefixes of the cluster.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.controls import control
from cluster_layer.counters import Counters
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ShardUnavailable
from cluster_layer.inspection import status_of
from cluster_layer.keys import Keys
from cluster_layer.keyspace import BATCH, MEMBERS, QUEUE, Found, keys_of, leftovers_on
from cluster_layer.links import Link
from cluster_layer.permissions import permissions_of
from cluster_layer.presence import Presence
from cluster_layer.reports import Sightings, by_process, milliseconds, sightings_on
from cluster_layer.routing import endpoint_of
from cluster_layer.running import LinkSettings
from cluster_layer.topologies import Topologies
from topology.errors import ClusterError
from topology.hashing import slot_of
from topology.model import Shard, ShardState, Topology
from topology.ports import Leftovers, Moved, ProcessReport, ShardStatus

KEYS_AT_ONCE = 100
MEMBERS_AT_ONCE = 100
MESSAGES_AT_ONCE = 100
# From the look at members to the request that copies them; it is executed within the timeout, or
# not at all. Both together are less than a tombstone lasts, which is the `group_expiry` of whoever
# left it.
COPY_WITHIN_S = 1.0
COPY_ATTEMPTS = 5
# A batch, and its receipt, must outlive whoever resumes; its messages expire long before.
BATCH_TTL_MS = 86_400_000


class Administration:
    """Links of its own to all shards of a cluster; belongs to one loop.

    With a `name` it reports to the shards as a monitor of that name.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        name: str | None = None,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 2.0,
        endpoint_for: Callable[[Shard], Endpoint] = endpoint_of,
    ) -> None:
        self._topologies = Topologies(topology, endpoint_for)
        self._settings = LinkSettings("", timeout_s, connect_timeout_s, of_layer=False)
        self._endpoint_for = endpoint_for
        self._told: Mapping[str, str] = {}
        self._presence = None
        if name is not None:
            self._presence = Presence(
                name, "", lambda: self.topology.epoch, lambda: self._told, role="monitor"
            )
        self._shards: dict[str, Shard] = {}  # also those that earlier topologies had
        self._links: dict[str, Link] = {}
        self._learn(topology)

    @property
    def topology(self) -> Topology:
        """The newest topology that was given, or that a shard had."""
        return self._topologies.topology

    async def close(self) -> None:
        """Close all connections."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))

    # -- topologies and reports

    async def install(self, topology: Topology, shards: Collection[str]) -> dict[str, str]:
        """See the port."""
        self._learn(topology)

        async def bring(shard: str) -> None:
            served = await self._link(shard).align()
            if served != topology.epoch:
                reason = f"it serves epoch {served}, and not {topology.epoch}"
                raise ShardUnavailable(shard, reason)

        return {shard: reason for shard, _, reason in await self._on_each(shards, bring) if reason}

    async def processes(
        self,
        *,
        complete: bool = False,
        without: Collection[str] = (),
        within_s: float | None = None,
    ) -> dict[str, ProcessReport]:
        """See the port."""
        asked = [shard for shard in self._up(self.topology) if shard not in without]
        found = await self._on_each(asked, partial(self._sightings_within, within_s))
        for shard, sightings, reason in found:
            if sightings is None and complete:
                raise ShardUnavailable(shard, reason)
        return by_process(sightings for _, sightings, _ in found if sightings)

    async def report(self, unreachable: Mapping[str, str]) -> None:
        """See the port."""
        self._told = dict(unreachable)
        for link in self._links.values():
            link.report()

    # -- memberships

    async def clean_members(self, topology: Topology, shard: str, slots: Collection[int]) -> int:
        """See the port."""
        self._learn(topology)
        link = self._link(shard)
        # What is looked for must not be written any more by who goes by an earlier topology.
        await link.align()
        connection = await link.ready()
        wanted = set(slots)
        found = [
            key.key
            async for key in keys_of(connection, link.keys.incarnation, MEMBERS)
            if slot_of(key.name) in wanted
        ]
        cleaned = 0
        for start in range(0, len(found), KEYS_AT_ONCE):
            keys = found[start : start + KEYS_AT_ONCE]
            build = _unchanging(keys)
            cleaned += int(await link.run(scripts.MEMBERS_CLEAN, topology.epoch, build))
        return cleaned

    async def copy_members(self, topology: Topology) -> int:
        """See the port."""
        self._learn(topology)
        copied = 0
        for source in sorted({topology.owner_of(slot).id for slot in topology.moving}):
            copied += await self._copy_members_from(source, topology)
        return copied

    async def _copy_members_from(self, source: str, topology: Topology) -> int:
        link = self._link(source)
        connection = await link.ready()
        copied = 0
        async for found in keys_of(connection, link.keys.incarnation, MEMBERS):
            slot = slot_of(found.name)
            target = topology.other_home(slot)
            if topology.owner_of(slot).id == source and target is not None:
                members = await connection.execute(("ZRANGE", found.key, 0, -1))
                for start in range(0, len(members), MEMBERS_AT_ONCE):
                    batch = members[start : start + MEMBERS_AT_ONCE]
                    copied += await self._copy(link, target.id, topology.epoch, found, batch)
        return copied

    async def _copy(
        self, source: Link, target: str, epoch: int, found: Found, members: Sequence[bytes]
    ) -> int:
        """Add these members at the home to come, as they are at the old one.

        Who leaves after the look there leaves a tombstone at the home to come, so this can't bring
        him back; but a tombstone ends, so it must not take long.
        """
        for _ in range(COPY_ATTEMPTS):
            until = monotonic() + COPY_WITHIN_S
            connection = await source.ready()
            clock, *scores = await connection.execute(
                ("TIME",), *(("ZSCORE", found.key, member) for member in members)
            )
            left = _with_time_left(members, scores, milliseconds(clock))
            if not left:
                return 0
            with suppress(_OutOfDate):
                return await self._add_members(target, epoch, found, left, until)
        raise ShardUnavailable(target, f"it took longer than {COPY_WITHIN_S:g} s to reach it")

    async def _add_members(
        self,
        target: str,
        epoch: int,
        found: Found,
        left: Sequence[tuple[str, int]],
        until: float,
    ) -> int:
        """_OutOfDate: it could not be asked to before that (monotonic time)."""
        link = self._link(target)

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            if monotonic() > until:
                raise _OutOfDate
            keys = self._keys(link, found.prefix)
            described: list[str | int | bytes] = []
            for channel, left_ms in left:
                stored = control("stored", found.name, channel, epoch)
                described += [channel, left_ms, stored]
            named = (keys.members(found.name), keys.seq, keys.log)
            return named, (keys.group(found.name), 1, *described)

        _, added = await link.run(scripts.GROUP_STORE, epoch, build)
        return int(added)

    # -- queues

    async def leftovers(self, shard: str, slots: Collection[int]) -> Leftovers:
        """See the port."""
        link = self._link(shard)
        return await leftovers_on(await link.ready(), link.keys.incarnation, slots)

    async def move_queues(self, topology: Topology) -> Moved:
        """See the port."""
        self._learn(topology)
        total = Moved(0, 0)
        for shard in self._up(topology):
            total = _sum(total, await self._settle_batches(topology, shard))
        former = {home.id for slot in topology.moving if (home := topology.other_home(slot))}
        for shard in sorted(former):
            link = self._link(shard)
            connection = await link.ready()
            queues = [found async for found in keys_of(connection, link.keys.incarnation, QUEUE)]
            for found in queues:
                home = topology.other_home(slot_of(found.name))
                if home is not None and home.id == shard:
                    total = _sum(total, await self._move_queue(topology, shard, found))
        return total

    async def _settle_batches(self, topology: Topology, shard: str) -> Moved:
        """Bring to an end what somebody has set aside here and did not get through."""
        link = self._link(shard)
        connection = await link.ready()
        total = Moved(0, 0)
        for found in [found async for found in keys_of(connection, link.keys.incarnation, BATCH)]:
            batch = await self._take(topology, shard, found, "")
            if batch is not None:
                total = _sum(total, await self._settle_batch(topology, batch))
        return total

    async def _move_queue(self, topology: Topology, shard: str, found: Found) -> Moved:
        target = self._link(topology.shard_of(found.name).id)
        total = Moved(0, 0)
        while True:
            await target.ready()
            home = f"{target.shard} {target.keys.incarnation} {secrets.token_hex(8)}"
            batch = await self._take(topology, shard, found, home)
            if batch is None:
                return total
            total = _sum(total, await self._settle_batch(topology, batch))

    async def _take(self, topology: Topology, shard: str, found: Found, name: str) -> _Batch | None:
        """Set messages aside under this name, or find those that are set aside already."""
        link = self._link(shard)
        keys = self._keys(link, found.prefix)
        named = (keys.queue(found.name), keys.batch(found.name))
        build = _unchanging(named, name, MESSAGES_AT_ONCE if name else 0, BATCH_TTL_MS)
        now, *items = await link.run(scripts.QUEUE_TAKE, topology.epoch, build)
        if not items:
            return None
        left = [_with_what_is_left(item, int(now)) for item in items[1:]]
        return _Batch(shard, found.prefix, found.name, items[0].decode(), left)

    async def _settle_batch(self, topology: Topology, batch: _Batch) -> Moved:
        """To the head of the queue on its new home, once; or back, or away."""
        target, life, token = batch.name.rsplit(" ", 2)
        up = self._up(topology)
        if target not in up:
            return await self._end_batch(topology, batch, lost=True)
        link = self._link(target)
        await link.ready()
        if link.keys.incarnation != life:
            # It may have been delivered there in the life that is over.
            return await self._end_batch(topology, batch, lost=True)
        is_home = topology.shard_of(batch.channel).id == target
        keys = self._keys(link, batch.prefix)
        named = (keys.queue(batch.channel), keys.receipt(token))
        build = _unchanging(named, BATCH_TTL_MS, *(batch.items if is_home else ()))
        # If it is not the home any more: from here on nobody can push the batch there.
        is_new = bool(await link.run(scripts.QUEUE_RECEIVE, topology.epoch, build))
        return await self._end_batch(topology, batch, back=is_new and not is_home)

    async def _end_batch(
        self, topology: Topology, batch: _Batch, *, back: bool = False, lost: bool = False
    ) -> Moved:
        link = self._link(batch.shard)
        keys = self._keys(link, batch.prefix)
        named = (keys.queue(batch.channel), keys.batch(batch.channel))
        build = _unchanging(named, batch.name, int(back), BATCH_TTL_MS)
        await link.run(scripts.QUEUE_SETTLE, topology.epoch, build)
        count = len(batch.items)
        return Moved(0, count) if lost else Moved(0 if back else count, 0)

    # -- the state of a shard

    async def inspect(self, shard: Shard) -> ShardStatus:
        """See the port."""
        self._shards[shard.id] = shard
        try:
            link = self._link(shard.id)
            connection = await link.ready()
            status = await status_of(shard.id, connection, self.topology.cluster, link.endpoint.db)
            refused = await permissions_of(connection, link.keys.cluster, link.keys.incarnation)
            return status if refused is None else replace(status, missing_permissions=refused.all)
        except ClusterError as error:
            return ShardStatus(shard.id, getattr(error, "reason", str(error)))

    async def probe(self, shard: Shard, timeout_s: float) -> str | None:
        """See the port."""
        self._shards[shard.id] = shard
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._link(shard.id).ready()
                await connection.execute(("PING",))
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except ClusterError as error:
            return str(getattr(error, "reason", error))
        return None

    # -- internals

    def _learn(self, topology: Topology) -> None:
        self._topologies.offer(topology)
        self._shards |= {shard.id: shard for shard in topology.shards}

    def _up(self, topology: Topology) -> list[str]:
        """Ids of the shards that are to be reached."""
        return [shard.id for shard in topology.shards if shard.state is not ShardState.DOWN]

    def _link(self, shard: str) -> Link:
        """A link also to a shard that is down, or is none any more."""
        endpoint = self._endpoint_for(self._shards[shard])
        link = self._links.get(shard)
        if link is None or link.ended or link.endpoint != endpoint:
            link = Link(
                shard, endpoint, self._settings, Counters(), self._topologies, self._presence
            )
            self._links[shard] = link
        return link

    def _keys(self, link: Link, prefix: str) -> Keys:
        cluster = self._topologies.topology.cluster
        return Keys(prefix, cluster, link.keys.incarnation, link.endpoint.db)

    async def _on_each(
        self, shards: Collection[str], work: Callable[[str], Any]
    ) -> list[tuple[str, Any, str]]:
        """(shard, result or None, reason of its failure or "") for each."""

        async def attempt(shard: str) -> tuple[str, Any, str]:
            try:
                return shard, await work(shard), ""
            except ClusterError as error:
                return shard, None, str(getattr(error, "reason", error)) or "it failed"

        return list(await asyncio.gather(*map(attempt, shards)))

    async def _sightings_within(self, within_s: float | None, shard: str) -> Sightings:
        try:
            async with asyncio.timeout(within_s):
                return await self._sightings_on(shard)
        except TimeoutError:
            raise ShardUnavailable(shard, f"no answer within {within_s:g} s") from None

    async def _sightings_on(self, shard: str) -> Sightings:
        link = self._link(shard)
        return await sightings_on(await link.ready(), link.keys.cluster)


class _OutOfDate(Exception):
    """What was read is too old to be written."""


class _Batch(NamedTuple):
    """Messages that are set aside on a shard, each with the time that is left to it."""

    shard: str
    prefix: str
    channel: str
    name: str  # target shard, its life, and a token
    items: Sequence[bytes]


@asynccontextmanager
async def open_cluster(topology: Topology, **options: Any) -> AsyncIterator[Administration]:
    """The shards of a topology, for a coordinator; closed at the end. See `Administration`."""
    administration = Administration(topology, **options)
    try:
        yield administration
    finally:
        await administration.close()


def _unchanging(
    keys: Sequence[bytes], *arguments: bytes | str | int
) -> Callable[[Keys], tuple[Sequence[bytes], Command]]:
    """What `Link.run` wants, for keys of another prefix than the link's."""
    return lambda _keys: (keys, arguments)


def _sum(one: Moved, other: Moved) -> Moved:
    return Moved(one.moved + other.moved, one.dropped + other.dropped)


def _with_time_left(
    members: Sequence[bytes], scores: Sequence[bytes | None], now_ms: int
) -> list[tuple[str, int]]:
    """Members that are neither gone, nor expired, nor tombstones, and how long they have, in ms."""
    deadlines = [0 if score is None else int(float(score)) for score in scores]
    found = zip(members, deadlines, strict=True)
    return [(name.decode(), deadline - now_ms) for name, deadline in found if deadline > now_ms]


def _with_what_is_left(item: bytes, now_ms: int) -> bytes:
    """An item of a queue, with the time that is left to it instead of its deadline."""
    deadline, _, envelope = item.partition(b":")
    return b"%d:%b" % (max(0, int(deadline) - now_ms), envelope)
