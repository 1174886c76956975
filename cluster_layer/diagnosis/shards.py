"""Rules about each shard: its server, its settings, what its user may do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from cluster_layer.diagnosis.findings import (
    NEARLY_FULL,
    SLOW_S,
    Facts,
    Finding,
    Rule,
    Severity,
    count,
    listed,
    mb,
    ms,
)
from cluster_layer.overview import Role
from topology.model import ShardState
from topology.ports import ShardStatus

#: Clocks that differ by more are told of; nothing depends on them.
CLOCK_S: Final = 1.0
OLDEST_REDIS: Final = (6, 2)
_OF_A_LOGIN: Final = ("WRONGPASS", "NOAUTH", "invalid username")


def _shards_reachable(facts: Facts) -> Iterator[Finding]:
    rule, statuses = "shard.reachable", facts.overview.statuses
    wrong = []
    for shard in facts.topology.shards:
        status = statuses.get(shard.id, ShardStatus(shard.id, "not asked"))
        if shard.state is ShardState.DOWN:
            yield _down(shard.id, status)
        elif (finding := _unusable(rule, status)) is not None:
            wrong.append(finding)
    yield from wrong
    if facts.reached and not wrong:
        slowest = ms(max(status.latency_s or 0 for status in facts.reached))
        what = f"{count(facts.reached, 'shard')}, a round trip takes {slowest} at most"
        yield Finding(Severity.OK, rule, "shards", what)


def _unusable(rule: str, status: ShardStatus) -> Finding | None:
    """Why processes cannot use a shard, or not well."""
    shard = status.shard
    if status.reason is not None:
        remedy = f"start it; if it stays away, and no monitor runs: shard mark down {shard}"
        if "NOPERM" in status.reason:
            remedy = "allow its user +time +info"
        elif any(word in status.reason for word in _OF_A_LOGIN):
            remedy = "correct the user or the password in its URL, or on the server"
        return Finding(Severity.PROBLEM, rule, shard, f"not reached: {status.reason}", remedy)
    if status.role != "master":
        what = "it is a replica: processes do not use it"
        remedy = "name its primary in the URL"
        return Finding(Severity.PROBLEM, rule, shard, what, remedy)
    if (status.latency_s or 0) > SLOW_S:
        what = f"a round trip takes {ms(status.latency_s)}"
        remedy = "every send waits for one: look at the network, and at SLOWLOG GET"
        return Finding(Severity.WARNING, rule, shard, what, remedy)
    return None


def _down(shard: str, status: ShardStatus) -> Finding:
    what = "it is marked as down, and owns nothing"
    if status.reachable:
        what += "; it answers"
    remedy = (
        f"when it is well: shard mark up {shard}, unless a monitor does; else shard remove {shard}"
    )
    return Finding(Severity.WARNING, "shard.down", shard, what, remedy)


def _servers(facts: Facts) -> Iterator[Finding]:
    """Versions, and servers of a kind that is no shard."""
    rule = "shard.version"
    versions = Counter(status.version or "of an unknown version" for status in facts.reached)
    for status in facts.reached:
        if (number := _version_number(status.version)) is not None and number < OLDEST_REDIS:
            what = f"it is {status.version}"
            remedy = "use Redis 6.2 or newer, or Valkey"
            yield Finding(Severity.PROBLEM, rule, status.shard, what, remedy)
        if status.mode not in (None, "standalone"):
            what = f"it runs in {status.mode} mode: what is written in one step lies in many slots"
            remedy = "turn cluster-enabled off: each shard is a server by itself"
            yield Finding(Severity.PROBLEM, "shard.mode", status.shard, what, remedy)
    if len(versions) > 1:
        what = ", ".join(f"{count} x {version}" for version, count in sorted(versions.items()))
        yield Finding(Severity.NOTE, rule, "shards", what, "fine while they are being upgraded")
    elif versions:
        yield Finding(Severity.OK, rule, "shards", f"all are {next(iter(versions))}")


def _same_server(facts: Facts) -> Iterator[Finding]:
    lives: dict[str, list[str]] = defaultdict(list)
    for status in facts.reached:
        if status.incarnation is not None:
            lives[status.incarnation].append(status.shard)
    for shards in lives.values():
        if len(shards) > 1:
            what = f"{listed(shards)} are one server: they share its core, and are lost together"
            remedy = "run one server for each shard"
            yield Finding(Severity.WARNING, "shard.alone", shards[0], what, remedy)


def _memory(facts: Facts) -> Iterator[Finding]:
    rule = "shard.memory"
    unlimited, fine = [], 0
    for status in facts.reached:
        limit, used = status.max_memory_bytes, status.memory_bytes
        if limit is None or used is None:
            continue
        if limit == 0:
            unlimited.append(status.shard)
        elif used > NEARLY_FULL * limit:
            what = f"{used / limit:.0%} of maxmemory is used ({mb(used)} of {mb(limit)})"
            remedy = "give it more memory or a smaller weight, or add a shard"
            yield Finding(Severity.WARNING, rule, status.shard, what, remedy)
        else:
            fine += 1
    if unlimited:
        what = f"no maxmemory: {listed(unlimited)}; a full host ends the server, not a send"
        remedy = "set maxmemory to what the host can spare"
        yield Finding(Severity.NOTE, rule, "shards", what, remedy)
    elif fine and fine == len(facts.reached):
        yield Finding(Severity.OK, rule, "shards", "all have room")


def _eviction(facts: Facts) -> Iterator[Finding]:
    rule, fine = "shard.eviction", 0
    for status in facts.reached:
        policy = status.max_memory_policy
        if policy is None or policy == "noeviction":
            fine += policy is not None
            continue
        at_work = bool(status.max_memory_bytes)
        yield Finding(
            Severity.PROBLEM if at_work else Severity.WARNING,
            rule,
            status.shard,
            f"maxmemory-policy is {policy}: messages, memberships and epochs vanish unseen"
            + ("" if at_work else ", once there is a maxmemory"),
            "CONFIG SET maxmemory-policy noeviction: a send that finds no room is told so",
        )
    if fine and fine == len(facts.reached):
        yield Finding(Severity.OK, rule, "shards", "none evicts")


def _persistence(facts: Facts) -> Iterator[Finding]:
    rule, fine = "shard.persistence", 0
    for status in facts.reached:
        if status.persistence is None:
            what = "it does not tell whether it writes to disk: CONFIG GET is refused"
            remedy = "see that save and appendonly are off, or allow +config|get"
            yield Finding(Severity.NOTE, rule, status.shard, what, remedy)
        elif status.persistence != "none":
            yield Finding(
                Severity.WARNING,
                rule,
                status.shard,
                f"it writes to disk ({status.persistence}): that costs forks and pauses, and "
                "nothing that a restart brings back is ever read",
                'set save "" and appendonly no',
            )
        else:
            fine += 1
    if fine and fine == len(facts.reached):
        yield Finding(Severity.OK, rule, "shards", "none writes to disk")


def _replicas(facts: Facts) -> Iterator[Finding]:
    rule = "shard.replicas"
    with_replicas = [s for s in facts.reached if s.role == "master" and s.replicas]
    for status in with_replicas:
        count = status.replicas or 0
        yield Finding(
            Severity.NOTE,
            rule,
            status.shard,
            f"{count} {'replica' if count == 1 else 'replicas'}: a promotion begins a new life of "
            "the shard, and what waited there is lost; so does the attaching of the first replica",
            "attach them before it is used; a Sentinel in CONFIG addresses follows a promotion",
        )
    if facts.reached and not with_replicas:
        yield Finding(Severity.OK, rule, "shards", "no replicas: a lost shard's names move")


def _permissions(facts: Facts) -> Iterator[Finding]:
    rule, fine = "shard.permissions", 0
    for shard, found in facts.permissions.items():
        if found is None:
            what = "its user may not use MULTI, with which permissions are asked without a change"
            yield Finding(Severity.NOTE, rule, shard, what, "allow +multi +discard, or see docs")
            continue
        refused = [(role, found.commands[role]) for role in Role if found.commands.get(role)]
        for role, commands in refused:
            allowed = " ".join(f"+{command}" for command in commands)
            severity = {Role.PROCESS: Severity.PROBLEM, Role.OPERATOR: Severity.WARNING}
            yield Finding(
                severity.get(role, Severity.NOTE),
                rule,
                shard,
                f"its user may not use what {role.value} needs: {listed(commands)}",
                f"ACL SETUSER ... {allowed}",
            )
        for kind, mark, patterns in (("key", "~", found.keys), ("channel", "&", found.channels)):
            if patterns:
                allowed = " ".join(mark + pattern for pattern in patterns)
                what = f"its user may not use the {kind}s {', '.join(patterns)}"
                remedy = f"ACL SETUSER ... {allowed}"
                yield Finding(Severity.PROBLEM, rule, shard, what, remedy)
        fine += not (refused or found.keys or found.channels)
    if fine and fine == len(facts.permissions):
        yield Finding(Severity.OK, rule, "shards", "their users may do what is needed")


def _connections(facts: Facts) -> Iterator[Finding]:
    rule, full = "shard.connections", False
    known = [s for s in facts.reached if s.connections is not None and s.max_connections]
    for status in known:
        used, limit = status.connections or 0, status.max_connections or 1
        if used > NEARLY_FULL * limit:
            full = True
            what = f"{used:,} of {limit:,} connections (maxclients) are in use"
            remedy = "raise maxclients, and the server's limit of open files"
            yield Finding(Severity.WARNING, rule, status.shard, what, remedy)
    if known and not full:
        most = max(status.connections or 0 for status in known)
        yield Finding(Severity.OK, rule, "shards", f"at most {most:,} connections")


def _clocks(facts: Facts) -> Iterator[Finding]:
    rule, off = "shard.clock", False
    for status in facts.reached:
        if status.clock_offset_s is not None and abs(status.clock_offset_s) > CLOCK_S:
            off = True
            what = f"its clock is {status.clock_offset_s:+.1f} s from this host's"
            remedy = "nothing depends on it (P10); for logs, run NTP"
            yield Finding(Severity.NOTE, rule, status.shard, what, remedy)
    if facts.reached and not off:
        yield Finding(Severity.OK, rule, "shards", f"within {CLOCK_S:g} s of this host's clock")


def _leftovers(facts: Facts) -> Iterator[Finding]:
    rule, dirty = "shard.leftovers", False
    known = {shard: found for shard, found in facts.leftovers.items() if found is not None}
    for shard, found in known.items():
        if found.queues or found.members:
            dirty = True
            what = (
                f"of slots that it does not serve it has {found.messages:,} messages in "
                f"{found.queues:,} queues, and members of {found.members:,} groups"
            )
            remedy = "nobody reads them, and they expire; verify tells what a change has left"
            yield Finding(Severity.NOTE, rule, shard, what, remedy)
    if known and not dirty:
        yield Finding(Severity.OK, rule, "shards", "none")


def _version_number(version: str | None) -> tuple[int, int] | None:
    """(6, 2) of "Redis 6.2.14"; None of Valkey, all of which are new enough, and if unknown."""
    if version is None or not version.startswith("Redis "):
        return None
    parts = version.removeprefix("Redis ").split(".")
    return (int(parts[0]), int(parts[1])) if all(p.isdigit() for p in parts[:2]) else None


RULES: Final[Sequence[Rule]] = (
    _shards_reachable,
    _servers,
    _same_server,
    _memory,
    _eviction,
    _persistence,
    _replicas,
    _permissions,
    _connections,
    _clocks,
    _leftovers,
)
