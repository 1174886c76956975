"""What speaks against executing a plan now: values in, objections out; each can be overridden."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from topology.model import ShardState, Topology
from topology.plans import Plan
from topology.ports import ProcessReport, ShardStatus, StoreServer
from topology.progress import SILENT_AFTER_S, receivers

#: Name of a check -> what it refuses.
CHECKS: Final[Mapping[str, str]] = {
    "reachable": "a shard that is not down cannot be reached",
    "store": "a server of the store is away, and with one more the store would be",
    "memory": "a target would fill more than nine tenths of its maxmemory",
    "writable": "a shard is a replica, which refuses what is written to it",
    "permissions": "a shard forbids this user a command",
    "version": "a shard is older than Redis 6.2",
    "epoch": "a shard serves a newer epoch than the store has",
    "processes": "a process is silent, or cannot reach a shard of the plan",
    "answers": "a shard that is to be marked as down answers",
}

#: Of its maxmemory, at most so much may be in use on a target afterwards.
FILLED_AT_MOST: Final = 0.9
_OLDEST: Final = (6, 2)
_VERSION = re.compile(r"(Redis|Valkey) (\d+)\.(\d+)")
_NAMED_AT_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason not to begin; ``check`` is the name under which it is overridden."""

    check: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.check}: {self.reason}; {self.remedy}"


def objections_to(
    plan: Plan,
    topology: Topology,
    statuses: Mapping[str, ShardStatus],
    servers: Sequence[StoreServer],
    reports: Iterable[ProcessReport],
) -> tuple[Objection, ...]:
    """What speaks against this plan; ``statuses`` are of all shards before and after that matter.

    In the order of ``CHECKS``.
    """
    found = [
        *_of_shards(statuses.values(), topology),
        *_of_store(servers),
        *_of_memory(plan, topology, statuses),
        *_of_processes(reports, set(statuses)),
    ]
    names = list(CHECKS)
    return tuple(sorted(found, key=lambda objection: names.index(objection.check)))


def objections_to_loss(lost: Iterable[ShardStatus]) -> tuple[Objection, ...]:
    """What speaks against marking these shards as down."""
    return tuple(
        Objection(
            "answers",
            f"shard {status.shard} answers, and what is on it would be lost",
            "drain or remove it instead, which loses nothing",
        )
        for status in lost
        if status.reachable
    )


def concerned(plan: Plan, topology: Topology) -> tuple[str, ...]:
    """Ids of the shards that the execution needs: all of before and after that are not down."""
    wanted = {shard.id: shard for shard in plan.shards}
    there = {shard.id: shard for shard in topology.shards}
    return tuple(
        shard_id
        for shard_id, shard in sorted((there | wanted).items())
        if shard.state is not ShardState.DOWN
    )


def estimated_bytes(
    plan: Plan, topology: Topology, statuses: Mapping[str, ShardStatus]
) -> dict[tuple[str, str], int]:
    """(source, target) -> memory that moves, at most; without sources that do not tell.

    By the share of a source's slots: the messages of a channel wait where they are until they are
    read, so much less moves as a rule.
    """
    owned = Counter(topology.table.owners)
    found = {}
    for (source, target), slots in plan.flows().items():
        status = statuses.get(source)
        if status is not None and status.memory_bytes is not None:
            found[source, target] = status.memory_bytes * len(slots) // owned[source]
    return found


def _of_shards(statuses: Iterable[ShardStatus], topology: Topology) -> Iterable[Objection]:
    for status in statuses:
        where = f"shard {status.shard}"
        if not status.reachable:
            yield Objection(
                "reachable",
                f"{where} cannot be reached from here ({status.reason})",
                "mark it as down if it is lost",
            )
            continue
        if status.role in ("slave", "replica"):
            yield Objection("writable", f"{where} is a replica", "use its primary")
        if status.missing_permissions:
            commands = ", ".join(status.missing_permissions[:_NAMED_AT_MOST])
            yield Objection("permissions", f"{where} forbids {commands}", "allow it by its ACL")
        if _is_old(status.version):
            yield Objection("version", f"{where} is {status.version}", "6.2 or newer is needed")
        if status.epoch is not None and status.epoch > topology.epoch:
            yield Objection(
                "epoch",
                f"{where} serves epoch {status.epoch}, the store has {topology.epoch}",
                "the store may have been restored from a backup",
            )


def _is_old(version: str | None) -> bool:
    found = _VERSION.match(version or "")
    return found is not None and (int(found[2]), int(found[3])) < _OLDEST


def _of_store(servers: Sequence[StoreServer]) -> Iterable[Objection]:
    away = [server for server in servers if not server.serves]
    majority = len(servers) // 2 + 1
    if away and len(servers) - len(away) - 1 < majority:
        names = ", ".join(f"{server.address} ({server.reason})" for server in away)
        yield Objection(
            "store",
            f"{len(away)} of {len(servers)} servers of the store do not serve: {names}",
            "start them first",
        )


def _of_memory(
    plan: Plan, topology: Topology, statuses: Mapping[str, ShardStatus]
) -> Iterable[Objection]:
    arriving: Counter[str] = Counter()
    for (_, target), size in estimated_bytes(plan, topology, statuses).items():
        arriving[target] += size
    for target, size in sorted(arriving.items()):
        status = statuses.get(target)
        if status is None or not status.max_memory_bytes or status.memory_bytes is None:
            continue
        if status.memory_bytes + size > FILLED_AT_MOST * status.max_memory_bytes:
            yield Objection(
                "memory",
                f"shard {target} uses {_mebibytes(status.memory_bytes)} of "
                f"{_mebibytes(status.max_memory_bytes)}, and up to {_mebibytes(size)} arrive",
                "raise its maxmemory, or give it less weight",
            )


def _of_processes(reports: Iterable[ProcessReport], shards: Collection[str]) -> Iterable[Objection]:
    for report in receivers(reports):
        where = f"process {report.id} (host {report.host}, pid {report.pid})"
        cut_off = sorted(set(report.unreachable) & set(shards))
        if report.age_s > SILENT_AFTER_S:
            reason = f"{where} is silent for {report.age_s:.0f} s"
        elif cut_off:
            reason = f"{where} cannot reach {', '.join(cut_off)}"
        else:
            continue
        yield Objection("processes", reason, "it would hold the change up: mend it or end it")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
