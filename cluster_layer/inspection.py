"""What a shard says of itself. Asking changes nothing there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import ClusterKeys, incarnation_of, parse_info
from cluster_layer.session import CommandRefused
from topology.ports import ShardStatus

#: The fastest of so many tells of the shard and the network, and not of this host's own load.
ROUND_TRIPS: Final = 3


async def status_of(shard: str, connection: Connection, cluster: str, db: int) -> ShardStatus:
    """Ask a shard everything. ShardUnavailable, DeliveryUnknown: it can't be asked.

    A user who may not even ask for TIME and INFO is told so; whatever else is forbidden is None.
    """
    latency_s = min([await _round_trip_s(connection) for _ in range(ROUND_TRIPS)])
    clock, text = await connection.execute(("TIME",), ("INFO",))
    now_s = time.time()
    info = parse_info(text.decode("utf-8", "replace"))
    incarnation = _incarnation(info)
    epoch: bytes | None = None
    if incarnation is not None:
        epoch = await _allowed(connection, ("GET", ClusterKeys(cluster, incarnation, db).epoch))
    return ShardStatus(
        shard,
        latency_s=latency_s,
        version=_version(info),
        mode=info.get("redis_mode"),
        role=info.get("role"),
        replicas=_integer(info.get("connected_slaves")),
        incarnation=incarnation,
        epoch=int(epoch or 0),
        memory_bytes=_integer(info.get("used_memory")),
        max_memory_bytes=_integer(info.get("maxmemory")),
        max_memory_policy=info.get("maxmemory_policy"),
        persistence=await _persistence(connection, info),
        commands_per_s=_integer(info.get("instantaneous_ops_per_sec")),
        connections=_integer(info.get("connected_clients")),
        max_connections=_integer(info.get("maxclients")),
        clock_offset_s=int(clock[0]) + int(clock[1]) / 1_000_000 - now_s,
        keys=await _allowed(connection, ("DBSIZE",)),
    )


async def _round_trip_s(connection: Connection) -> float:
    began = time.monotonic()
    await connection.call((("PING",),))
    return time.monotonic() - began


def _incarnation(info: Mapping[str, str]) -> str | None:
    try:
        return incarnation_of(info["run_id"], info["master_replid"])
    except KeyError:
        return None


def _version(info: Mapping[str, str]) -> str | None:
    for name, field in (("Valkey", "valkey_version"), ("Redis", "redis_version")):
        if field in info:
            return f"{name} {info[field]}"
    return None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


async def _allowed(connection: Connection, command: Command) -> Any:
    """The answer, None if the user may not ask."""
    try:
        return await connection.execute(command)
    except CommandRefused:
        return None


async def _persistence(connection: Connection, info: Mapping[str, str]) -> str | None:
    """What writes to disk; None if the shard does not tell."""
    kinds = ["aof"] if info.get("aof_enabled") == "1" else []
    found = await _allowed(connection, ("CONFIG", "GET", "save"))
    if not found:  # forbidden, as most hosting services do, or renamed
        return ", ".join(kinds) or None
    return ", ".join(["rdb"] * bool(found[1]) + kinds) or "none"


def reason_of(error: Exception) -> str:
    """Why a shard could not be asked, in one line."""
    if isinstance(error, CommandRefused) and "NOPERM" in error.reason:
        return f"the user may not ask for TIME and INFO ({error.reason})"
    return str(getattr(error, "reason", error)) or ShardUnavailable.__name__
