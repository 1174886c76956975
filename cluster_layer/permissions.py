"""Which commands, keys and channels a shard's user needs, and which of them it is refused.

A shard checks the permissions for a command when it is queued in a transaction. So everything is
queued and then discarded: nothing is ever executed. Each refusal is an entry of its ACL LOG.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.keys import ClusterKeys
from cluster_layer.overview import Permissions, Role

#: Commands with arguments of the right shape; "{key}" is a key or a channel of ours.
NEEDED: Final[dict[Role, tuple[tuple[str, ...], ...]]] = {
    Role.PROCESS: (
        ("PING",),
        ("TIME",),
        ("INFO", "server"),
        ("CLIENT", "ID"),
        ("CLIENT", "UNBLOCK", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "1", "{key}"),
        ("EXISTS", "{key}"),
        ("GET", "{key}"),
        ("SET", "{key}", "1"),
        ("INCR", "{key}"),
        ("DEL", "{key}"),
        ("UNLINK", "{key}"),
        ("PEXPIRE", "{key}", "1"),
        ("PTTL", "{key}"),
        ("SCAN", "0"),
        ("XADD", "{key}", "*", "m", "x"),
        ("XINFO", "STREAM", "{key}"),
        ("XLEN", "{key}"),
        ("XREAD", "COUNT", "1", "STREAMS", "{key}", "0-0"),
        ("XTRIM", "{key}", "MAXLEN", "0"),
        ("BLPOP", "{key}", "1"),
        ("LINDEX", "{key}", "0"),
        ("LLEN", "{key}"),
        ("LPOP", "{key}"),
        ("LPUSH", "{key}", "x"),
        ("RPUSH", "{key}", "x"),
        ("HDEL", "{key}", "x"),
        ("HSET", "{key}", "x", "1"),
        ("ZADD", "{key}", "1", "x"),
        ("ZRANGE", "{key}", "0", "0"),
        ("ZRANGEBYSCORE", "{key}", "0", "0"),
        ("ZREM", "{key}", "x"),
        ("ZREMRANGEBYRANK", "{key}", "0", "0"),
        ("ZREMRANGEBYSCORE", "{key}", "0", "0"),
        ("ZSCORE", "{key}", "x"),
        ("PUBLISH", "{key}", "x"),
        ("PUBSUB", "NUMSUB", "{key}"),
        ("SUBSCRIBE", "{key}"),
        ("UNSUBSCRIBE", "{key}"),
    ),
    Role.OPERATOR: (
        ("HGETALL", "{key}"),
        ("LRANGE", "{key}", "0", "0"),
        ("LTRIM", "{key}", "0", "0"),
        ("RPOP", "{key}"),
    ),
    Role.CHECK: (
        ("CONFIG", "GET", "save"),
        ("DBSIZE",),
    ),
}
#: Commands that are allowed or forbidden by their second word.
_CONTAINERS: Final = ("CLIENT", "CONFIG", "PUBSUB", "SCRIPT", "XINFO")


def name_of(command: Sequence[str]) -> str:
    """The command as ACL rules name it: "get", "client|id"."""
    return "|".join(command[: 1 + (command[0] in _CONTAINERS)]).lower()


async def permissions_of(
    connection: Connection, cluster: ClusterKeys, incarnation: str, prefixes: Iterable[str]
) -> Permissions | None:
    """What the user of this connection may not do; None: it may not be asked.

    The connection is of no other use then. ShardUnavailable, DeliveryUnknown: it can't be asked.
    """
    opened = await connection.call((("MULTI",),))
    if connection.refusal(opened) is not None:
        return None
    missing: dict[Role, list[str]] = {}
    keys: dict[str, None] = {}
    channels: dict[str, None] = {}
    shown = "cluster-layer:*"
    for role, templates in NEEDED.items():
        commands = [
            tuple(part.replace("{key}", cluster.probe) for part in template)
            for template in templates
        ]
        for command, why in await _refusals(connection, commands):
            if "channel" in why:
                channels[shown] = None
            elif "key" in why:
                keys[shown] = None
            else:
                missing.setdefault(role, []).append(name_of([str(part) for part in command]))
    for prefix in prefixes:
        key = f"{prefix}:{incarnation}:x"
        for _, why in await _refusals(connection, [("GET", key), ("PUBLISH", key, "x")]):
            if "channel" in why:
                channels[f"{prefix}:*"] = None
            elif "key" in why:
                keys[f"{prefix}:*"] = None
    await connection.call((("DISCARD",),))
    return Permissions(
        {role: tuple(names) for role, names in missing.items()}, tuple(keys), tuple(channels)
    )


async def _refusals(
    connection: Connection, commands: Sequence[Command]
) -> list[tuple[Command, str]]:
    """The commands that the shard does not queue, and what it says."""
    replies = await connection.call(commands)
    found = []
    for command, reply in zip(commands, replies, strict=True):
        refusal = connection.refusal(reply)
        # Any other refusal is about this moment: the user may do it.
        if refusal is not None and "NOPERM" in refusal.reason:
            found.append((command, refusal.reason.partition(" to ")[2]))
    return found
