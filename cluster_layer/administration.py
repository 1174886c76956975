"""The shards as whoever runs a cluster sees them: what a coordinator or a monitor does there.

Everything works on all prefixes of the cluster. Keys are found by SCAN, which blocks no shard.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.controls import control
from cluster_layer.counters import Counters
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys, parse_info
from cluster_layer.links import Link, LinkSettings
from cluster_layer.presence import Presence
from cluster_layer.routing import endpoint_of
from cluster_layer.topologies import Topologies
from topology.hashing import slot_of
from topology.model import Shard, Topology

SCAN_COUNT = 1000
MEMBERS_AT_ONCE = 100
MESSAGES_AT_ONCE = 100
CHANNELS_AT_ONCE = 500
# A batch, and its receipt, must outlive whoever resumes; its messages expire long before.
BATCH_TTL_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What a process says of itself, and whether it is there."""

    id: str
    role: str
    host: str
    pid: int
    prefix: str
    version: str
    receives: bool
    alive: bool  #: a shard has its subscription
    epoch: int
    settled: int  #: the epoch whose duties it has fulfilled
    unreachable: Mapping[str, str]  #: shard -> why it can't be reached from there
    waiting_for: str | None
    age_s: float  #: since its latest report


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is on a shard of slots that are served elsewhere."""

    queues: int
    messages: int
    members: int


class Moved(NamedTuple):
    """Messages that went to the new homes of their queues."""

    moved: int
    dropped: int  # on their way when the new home died: they may have been delivered there


class _Found(NamedTuple):
    """A key of a layer on a shard."""

    key: bytes
    prefix: str
    name: str


class Administration:
    """Links of its own to all shards of a cluster; belongs to one loop."""

    def __init__(
        self,
        topology: Topology,
        *,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 2.0,
        endpoint_for: Callable[[Shard], Endpoint] = endpoint_of,
        presence: Presence | None = None,
    ) -> None:
        self._topologies = Topologies(topology, endpoint_for)
        self._settings = LinkSettings("", timeout_s, connect_timeout_s)
        self._endpoint_for = endpoint_for
        self._presence = presence
        self._shards: dict[str, Shard] = {}  # also those that earlier topologies had
        self._links: dict[str, Link] = {}
        self._learn(topology)

    @property
    def topology(self) -> Topology:
        """The newest topology that was given, or that a shard had."""
        return self._topologies.topology

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()

    # -- topologies and reports

    async def install(self, topology: Topology, shards: Collection[str]) -> dict[str, str]:
        """Bring a topology to these shards; shard -> why, for those that were not reached.

        A shard that has it, or a newer one, stays as it is.
        """
        self._learn(topology)

        async def bring(shard: str) -> None:
            if await self._link(shard).align() < topology.epoch:
                raise ShardUnavailable(shard, "it did not take the topology")

        return {shard: reason for shard, _, reason in await self._on_each(shards, bring) if reason}

    async def processes(self) -> dict[str, ProcessReport]:
        """Process id -> report, of all processes of which a reachable shard knows."""
        reports: dict[str, ProcessReport] = {}
        for _, found, _ in await self._on_each(self._reached(), self._reports_on):
            for report in found or ():
                known = reports.get(report.id)
                reports[report.id] = report if known is None else _merged(known, report)
        return reports

    # -- memberships

    async def clean_members(self, shard: str, slots: Collection[int]) -> int:
        """Delete the memberships of groups of these slots; how many groups had any."""
        link = self._link(shard)
        connection = await link.ready()
        cleaned = 0
        async for found in _keys_of(link, connection, b"m"):
            if slot_of(found.name) in slots:
                await connection.execute(("UNLINK", found.key))
                cleaned += 1
        return cleaned

    async def copy_members(self, topology: Topology) -> int:
        """Copy stored members of moving slots to the homes to come; how many were added there.

        Never over what is there. Call it when all homes serve the prepared topology.
        """
        sources = {topology.owner_of(slot).id for slot in topology.moving}
        copied = 0
        for source in sorted(sources):
            copied += await self._copy_members_from(source, topology)
        return copied

    async def _copy_members_from(self, source: str, topology: Topology) -> int:
        link = self._link(source)
        connection = await link.ready()
        copied = 0
        async for found in _keys_of(link, connection, b"m"):
            slot = slot_of(found.name)
            target = topology.other_home(slot)
            if topology.owner_of(slot).id == source and target is not None:
                clock, members = await connection.execute(
                    ("TIME",), ("ZRANGE", found.key, 0, -1, "WITHSCORES")
                )
                left = _with_time_left(members, _milliseconds(clock))
                for start in range(0, len(left), MEMBERS_AT_ONCE):
                    batch = left[start : start + MEMBERS_AT_ONCE]
                    copied += await self._add_members(target.id, topology.epoch, found, batch)
        return copied

    async def _add_members(
        self, target: str, epoch: int, found: _Found, members: Sequence[tuple[str, int]]
    ) -> int:
        link = self._link(target)

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            keys = self._keys(link, found.prefix)
            described: list[str | int | bytes] = []
            for channel, left_ms in members:
                stored = control("stored", found.name, channel, epoch)
                described += [channel, left_ms, stored]
            named = (keys.members(found.name), keys.seq, keys.log)
            return named, (keys.group(found.name), 1, *described)

        _, added = await link.run(scripts.GROUP_STORE, epoch, build)
        return int(added)

    # -- what is left

    async def leftovers(self, shard: str, slots: Collection[int]) -> Leftovers:
        """What a shard still has of these slots. ShardUnavailable, DeliveryUnknown."""
        link = self._link(shard)
        connection = await link.ready()
        queues = messages = members = 0
        for kind in (b"q", b"v"):
            async for found in _keys_of(link, connection, kind):
                if slot_of(found.name) in slots:
                    queues += 1
                    length = int(await connection.execute(("LLEN", found.key)))
                    messages += max(0, length - (kind == b"v"))  # a batch begins with its name
        async for found in _keys_of(link, connection, b"m"):
            members += slot_of(found.name) in slots
        return Leftovers(queues, messages, members)

    async def move_queues(self, topology: Topology) -> Moved:
        """Move what is left in queues at their former homes; call it again until nothing is.

        Call it when the former homes serve the committed topology. ShardUnavailable,
        DeliveryUnknown: call it again; nothing is lost by that, and nothing comes twice.
        """
        moved = dropped = 0
        former = {home.id for slot in topology.moving if (home := topology.other_home(slot))}
        for source in sorted(former):
            link = self._link(source)
            connection = await link.ready()
            found = {
                (key.prefix, key.name): None
                for kind in (b"v", b"q")
                async for key in _keys_of(link, connection, kind)
            }
            for prefix, channel in found:
                slot = slot_of(channel)
                home = topology.other_home(slot)
                if home is not None and home.id == source:
                    target = topology.owner_of(slot).id
                    route = _QueueRoute(source, target, prefix, channel, topology.epoch)
                    one = await self._move_queue(route)
                    moved, dropped = moved + one.moved, dropped + one.dropped
        return Moved(moved, dropped)

    async def _move_queue(self, route: _QueueRoute) -> Moved:
        source, target = self._link(route.source), self._link(route.target)
        moved = dropped = 0
        while True:
            connection = await source.ready()
            await target.ready()
            old, new = self._keys(source, route.prefix), self._keys(target, route.prefix)
            batch = old.batch(route.channel)
            home = f"{route.target} {new.incarnation} "
            now, *items = await connection.execute(
                (
                    *("EVAL", scripts.QUEUE_TAKE.text, 2, old.queue(route.channel), batch),
                    *(home + secrets.token_hex(8), MESSAGES_AT_ONCE, BATCH_TTL_MS),
                )
            )
            if not items:
                return Moved(moved, dropped)
            name = items.pop(0).decode()
            if name.startswith(home):
                await self._take_in(target, route, name.rpartition(" ")[2], items, int(now))
                moved += len(items)
            else:
                # On its way to another shard, or to another life of this one, it may have been
                # delivered there.
                dropped += len(items)
            await connection.execute(("DEL", batch))

    async def _take_in(
        self, target: Link, route: _QueueRoute, token: str, items: Sequence[bytes], now_ms: int
    ) -> None:
        left = [_with_what_is_left(item, now_ms) for item in items]

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            keys = self._keys(target, route.prefix)
            return (keys.queue(route.channel), keys.receipt(token)), (BATCH_TTL_MS, *left)

        await self._run_here(target, scripts.QUEUE_RECEIVE, route.epoch, build)

    # -- the state of a shard

    async def inspect(self, shard: str) -> dict[str, Any]:
        """What a shard says of itself: INFO, some of its configuration, latency, epoch, clock.

        ShardUnavailable, DeliveryUnknown: it can't be asked.
        """
        link = self._link(shard)
        connection = await link.ready()
        before = time.monotonic()
        await connection.execute(("PING",))
        latency_ms = (time.monotonic() - before) * 1000
        clock, info, epoch, size = await connection.execute(
            ("TIME",), ("INFO",), ("GET", link.keys.cluster.epoch), ("DBSIZE",)
        )
        return {
            "latency_ms": latency_ms,
            "clock_offset_ms": _milliseconds(clock) - time.time() * 1000,
            "incarnation": link.keys.incarnation,
            "epoch": int(epoch or 0),
            "keys": size,
            "info": dict(parse_info(info.decode())),
        }

    # -- internals

    def _learn(self, topology: Topology) -> None:
        self._topologies.offer(topology)
        self._shards |= {shard.id: shard for shard in topology.shards}

    def _reached(self) -> list[str]:
        return [shard.id for shard in self._topologies.topology.shards]

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

    async def _run_here(
        self, link: Link, script: scripts.Script, epoch: int, build: Callable[[Keys], Any]
    ) -> Any:
        """Run a script that processes do not have, and shards need not know yet."""
        connection = await link.ready()
        await connection.execute(("SCRIPT", "LOAD", script.text))
        return await link.run(script, epoch, build)

    async def _on_each(
        self, shards: Collection[str], work: Callable[[str], Any]
    ) -> list[tuple[str, Any, str]]:
        """(shard, result or None, reason of its failure or "") for each."""

        async def attempt(shard: str) -> tuple[str, Any, str]:
            try:
                return shard, await work(shard), ""
            except (ShardUnavailable, DeliveryUnknown) as error:
                return shard, None, error.reason

        return list(await asyncio.gather(*map(attempt, shards)))

    async def _reports_on(self, shard: str) -> list[ProcessReport]:
        link = self._link(shard)
        connection = await link.ready()
        cluster = link.keys.cluster
        clock, reports, beats = await connection.execute(
            ("TIME",), ("HGETALL", cluster.reports), ("ZRANGE", cluster.beats, 0, -1, "WITHSCORES")
        )
        now_ms = _milliseconds(clock)
        beat_ms = {process: float(score) for process, score in _pairs(beats)}
        ids = [process for process, _ in _pairs(reports)]
        subscribers: dict[bytes, int] = {}
        for start in range(0, len(ids), CHANNELS_AT_ONCE):
            channels = [cluster.process(one.decode()) for one in ids[start:][:CHANNELS_AT_ONCE]]
            counts = await connection.execute(("PUBSUB", "NUMSUB", *channels))
            subscribers |= dict(_pairs(counts))
        parsed = (
            _parsed_report(
                text,
                alive=bool(subscribers.get(cluster.process(process.decode()))),
                age_s=max(0.0, now_ms - beat_ms.get(process, now_ms)) / 1000,
            )
            for process, text in _pairs(reports)
        )
        return [report for report in parsed if report is not None]


class _QueueRoute(NamedTuple):
    source: str
    target: str
    prefix: str
    channel: str
    epoch: int


@asynccontextmanager
async def open_cluster(topology: Topology, **options: Any) -> AsyncIterator[Administration]:
    """The shards of a topology, for a coordinator; closed at the end. See `Administration`."""
    administration = Administration(topology, **options)
    try:
        yield administration
    finally:
        await administration.close()


async def _keys_of(link: Link, connection: Connection, kind: bytes) -> AsyncIterator[_Found]:
    """The keys of one kind, of all prefixes, in this life of a shard."""
    infix = f":{link.keys.incarnation}:".encode() + kind + b":"
    cursor = b"0"
    while True:
        cursor, keys = await connection.execute(
            ("SCAN", cursor, "MATCH", b"*" + infix + b"*", "COUNT", SCAN_COUNT)
        )
        for key in keys:
            prefix, _, name = key.partition(infix)
            yield _Found(key, prefix.decode(), name.decode())
        if cursor == b"0":
            return


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _milliseconds(clock: Sequence[bytes]) -> int:
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


def _with_time_left(members: Sequence[bytes], now_ms: int) -> list[tuple[str, int]]:
    """Members that are neither expired nor tombstones, and how long they have, in ms."""
    left = [(channel.decode(), int(float(score)) - now_ms) for channel, score in _pairs(members)]
    return [(channel, milliseconds) for channel, milliseconds in left if milliseconds > 0]


def _with_what_is_left(item: bytes, now_ms: int) -> bytes:
    """An item of a queue, with the time that is left to it instead of its deadline."""
    deadline, _, envelope = item.partition(b":")
    return b"%d:%b" % (max(0, int(deadline) - now_ms), envelope)


def _parsed_report(text: bytes, *, alive: bool, age_s: float) -> ProcessReport | None:
    """A report as its process wrote it; None if it is none."""
    try:
        fields = json.loads(text)
        return ProcessReport(
            id=str(fields["id"]),
            role=str(fields["role"]),
            host=str(fields["host"]),
            pid=int(fields["pid"]),
            prefix=str(fields["prefix"]),
            version=str(fields["version"]),
            receives=bool(fields["receives"]),
            alive=alive,
            epoch=int(fields["epoch"]),
            settled=int(fields["settled"]),
            unreachable={str(k): str(v) for k, v in fields["unreachable"].items()},
            waiting_for=fields["waiting_for"] and str(fields["waiting_for"]),
            age_s=age_s,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _merged(one: ProcessReport, other: ProcessReport) -> ProcessReport:
    """Two shards' knowledge of one process: the later report, and whatever is known of its life."""
    later = min(one, other, key=lambda report: report.age_s)
    return ProcessReport(
        **{
            **{name: getattr(later, name) for name in ProcessReport.__slots__},
            "alive": one.alive or other.alive,
            "epoch": max(one.epoch, other.epoch),
            "settled": max(one.settled, other.settled),
        }
    )
