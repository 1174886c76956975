"""The keys that layers have on a shard, whatever their prefixes; by SCAN, which blocks nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final, NamedTuple

from cluster_layer.connection import Connection
from topology.hashing import slot_of
from topology.ports import Leftovers

SCAN_COUNT: Final = 1000
MEMBERS: Final = b"m"
QUEUE: Final = b"q"
BATCH: Final = b"v"


class Found(NamedTuple):
    """A key of a layer on a shard."""

    key: bytes
    prefix: str
    name: str


async def keys_of(connection: Connection, incarnation: str, kind: bytes) -> AsyncIterator[Found]:
    """The keys of one kind, of all prefixes, in this life of a shard."""
    infix = f":{incarnation}:".encode() + kind + b":"
    cursor = b"0"
    while True:
        cursor, keys = await connection.execute(
            ("SCAN", cursor, "MATCH", b"*" + infix + b"*", "COUNT", SCAN_COUNT)
        )
        for key in keys:
            prefix, _, name = key.partition(infix)
            yield Found(key, prefix.decode(), name.decode())
        if cursor == b"0":
            return


async def leftovers_on(
    connection: Connection, incarnation: str, slots: Collection[int]
) -> Leftovers:
    """What there is of these slots. ShardUnavailable, DeliveryUnknown: it could not be asked."""
    wanted = set(slots)
    queues = messages = members = 0
    for kind in (QUEUE, BATCH):
        async for found in keys_of(connection, incarnation, kind):
            if slot_of(found.name) in wanted:
                queues += 1
                length = int(await connection.execute(("LLEN", found.key)))
                messages += max(0, length - (kind == BATCH))  # a batch begins with its name
    async for found in keys_of(connection, incarnation, MEMBERS):
        members += slot_of(found.name) in wanted
    return Leftovers(queues, messages, members)
