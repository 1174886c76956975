"""Which commands, keys and channels a shard's user needs, and which of them it is refused.

A shard checks the permissions for a command when it is queued in a transaction. So everything is
queued and then discarded: nothing is ever executed. Each refusal is an entry of its ACL LOG.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

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
        ("INCRBY", "{key}", "1"),
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
        ("LRANGE", "{key}", "0", "0"),
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


#: What `check` asks with.
_ASKING: Final = ("multi", "discard")

_Asked: TypeAlias = tuple[tuple[str, ...], Role, str]  # command; whose; pattern of its key


def name_of(command: Sequence[str]) -> str:
    """The command as ACL rules name it: "get", "client|id"."""
    return "|".join(command[: 1 + (command[0] in _CONTAINERS)]).lower()


def commands_for(*roles: Role) -> tuple[str, ...]:
    """The ACL rules that allow what these roles need, and no other command."""
    names = [name_of(command) for role in roles for command in NEEDED[role]]
    names += _ASKING if Role.CHECK in roles else ()
    return tuple(f"+{name}" for name in dict.fromkeys(names))


def patterns_for(*prefixes: str) -> tuple[str, ...]:
    """The ACL rules for keys and channels of layers with these prefixes, and no others."""
    patterns = [f"{prefix}:*" for prefix in ("cluster-layer", *prefixes)]
    return (*(f"~{one}" for one in patterns), "resetchannels", *(f"&{one}" for one in patterns))


async def permissions_of(
    connection: Connection, cluster: ClusterKeys, incarnation: str, prefixes: Iterable[str] = ()
) -> Permissions | None:
    """What the user of this connection may not do; None: that can't be found out.

    ShardUnavailable, DeliveryUnknown: it can't be asked.
    """
    may = await connection.call((("MULTI",), ("DISCARD",)))
    if any(connection.refusal(reply) is not None for reply in may):
        return None
    asked = [*_of_roles(cluster.probe), *_of_prefixes(incarnation, prefixes)]
    # In one call: nobody else's command comes in between, to be discarded.
    commands = [command for command, _, _ in asked]
    _, *replies, _ = await connection.call((("MULTI",), *commands, ("DISCARD",)))
    refused: dict[Role, list[str]] = {}
    keys: dict[str, None] = {}
    channels: dict[str, None] = {}
    for (command, role, pattern), reply in zip(asked, replies, strict=True):
        refusal = connection.refusal(reply)
        # Any other refusal is about this moment: the user may do it.
        if refusal is None or "NOPERM" not in refusal.reason:
            continue
        # "... no permissions to access one of the keys used as arguments", "... access a channel"
        what = refusal.reason.partition(" access ")[2]
        if "channel" in what:
            channels[pattern] = None
        elif "key" in what:
            keys[pattern] = None
        else:
            refused.setdefault(role, []).append(name_of(command))
    return Permissions(
        {role: tuple(names) for role, names in refused.items()}, tuple(keys), tuple(channels)
    )


def _of_roles(key: str) -> Iterator[_Asked]:
    for role, templates in NEEDED.items():
        for template in templates:
            command = tuple(part.replace("{key}", key) for part in template)
            yield command, role, "cluster-layer:*"


def _of_prefixes(incarnation: str, prefixes: Iterable[str]) -> Iterator[_Asked]:
    for prefix in prefixes:
        key = f"{prefix}:{incarnation}:x"
        for command in (("GET", key), ("PUBLISH", key, "x")):
            yield command, Role.PROCESS, f"{prefix}:*"
