"""What a shard says of itself, and whether it lets us do what we have to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.keys import ClusterKeys, parse_info
from cluster_layer.session import CommandRefused
from topology.ports import ShardStatus

#: The commands of a layer, with arguments that change nothing that matters; `{key}` is ours.
_COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("PING",),
    ("TIME",),
    ("INFO", "server"),
    ("CLIENT", "ID"),
    ("CLIENT", "UNBLOCK", "0"),
    ("SCRIPT", "LOAD", "return 1"),
    ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"),
    ("EXISTS", "{key}"),
    ("GET", "{key}"),
    ("PEXPIRE", "{key}", "1"),
    ("PTTL", "{key}"),
    ("UNLINK", "{key}"),
    ("DEL", "{key}"),
    ("SCAN", "0", "MATCH", "{key}", "COUNT", "1"),
    ("XLEN", "{key}"),
    ("XTRIM", "{key}", "MAXLEN", "0"),
    ("XREAD", "COUNT", "1", "STREAMS", "{key}", "0-0"),
    ("LLEN", "{key}"),
    ("LRANGE", "{key}", "0", "0"),
    ("LINDEX", "{key}", "0"),
    ("LPOP", "{key}"),
    ("LTRIM", "{key}", "0", "0"),
    ("ZREM", "{key}", "x"),
    ("ZSCORE", "{key}", "x"),
    ("ZRANGE", "{key}", "0", "0"),
    ("ZRANGEBYSCORE", "{key}", "0", "0"),
    ("ZREMRANGEBYSCORE", "{key}", "0", "0"),
    ("ZREMRANGEBYRANK", "{key}", "0", "0"),
    ("HGETALL", "{key}"),
    ("HDEL", "{key}", "x"),
    ("PUBLISH", "{key}", "x"),
    ("PUBSUB", "NUMSUB", "{key}"),
)
#: These write, so they get a key that expires at once.
_WRITES: Final[tuple[tuple[str, ...], ...]] = (
    ("SET", "{key}s", "1", "PX", "1000"),
    ("INCR", "{key}c"),
    ("RPUSH", "{key}l", "x"),
    ("LPUSH", "{key}l", "x"),
    ("XADD", "{key}x", "*", "m", "x"),
    ("ZADD", "{key}z", "1", "x"),
    ("HSET", "{key}h", "x", "1"),
)
_WRITTEN: Final = ("{key}s", "{key}c", "{key}l", "{key}x", "{key}z", "{key}h")


async def status_of(shard: str, connection: Connection, cluster: ClusterKeys) -> ShardStatus:
    """Ask a shard everything. ShardUnavailable, DeliveryUnknown: it can't be asked."""
    before = time.monotonic()
    await connection.execute(("PING",))
    latency_s = time.monotonic() - before
    clock, text, epoch, keys = await connection.execute(
        ("TIME",), ("INFO",), ("GET", cluster.epoch), ("DBSIZE",)
    )
    shard_s = int(clock[0]) + int(clock[1]) / 1_000_000
    info = parse_info(text.decode("utf-8", "replace"))
    return ShardStatus(
        shard,
        latency_s=latency_s,
        version=_version(info),
        role=info.get("role"),
        replicas=_integer(info.get("connected_slaves")),
        incarnation=connection.incarnation,
        epoch=int(epoch or 0),
        memory_bytes=_integer(info.get("used_memory")),
        max_memory_bytes=_integer(info.get("maxmemory")),
        max_memory_policy=info.get("maxmemory_policy"),
        persistence=await _persistence(connection, info),
        commands_per_s=_integer(info.get("instantaneous_ops_per_sec")),
        connections=_integer(info.get("connected_clients")),
        clock_offset_s=shard_s - time.time(),
        keys=int(keys),
        missing_permissions=await _missing_permissions(connection, cluster),
    )


def _version(info: Mapping[str, str]) -> str | None:
    for name, field in (("Valkey", "valkey_version"), ("Redis", "redis_version")):
        if field in info:
            return f"{name} {info[field]}"
    return None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


async def _persistence(connection: Connection, info: Mapping[str, str]) -> str | None:
    """What writes to disk; None if the shard does not tell."""
    kinds = ["aof"] if info.get("aof_enabled") == "1" else []
    try:
        _, save = await connection.execute(("CONFIG", "GET", "save"))
    except CommandRefused:
        return ", ".join(kinds) or None  # CONFIG is forbidden, and not needed for anything else
    except ValueError:
        save = b""
    return ", ".join(["rdb"] * bool(save) + kinds) or "none"


async def _missing_permissions(connection: Connection, cluster: ClusterKeys) -> tuple[str, ...]:
    """The commands that the shard refuses to this user."""
    key = cluster.probe
    missing: dict[str, None] = {}
    try:
        for template in (*_COMMANDS, *_WRITES):
            command: Command = tuple(part.replace("{key}", key) for part in template)
            try:
                await connection.execute(command)
            except CommandRefused as refusal:
                if "NOPERM" in refusal.reason:
                    missing[" ".join(template[: 1 + (template[0] in _CONTAINERS)])] = None
    finally:
        written = [part.replace("{key}", key) for part in _WRITTEN]
        connection.call((("DEL", *written),))
    return tuple(missing)


_CONTAINERS: Final = ("CLIENT", "SCRIPT", "PUBSUB")
