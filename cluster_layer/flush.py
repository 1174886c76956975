"""Flush: empty every shard of a prefix, and every process that reads from it."""

from __future__ import annotations

import asyncio
import re
import secrets

import msgpack

from cluster_layer import answers
from cluster_layer.connection import Connection
from cluster_layer.envelope import CONTROL, encode
from cluster_layer.keys import Keys
from cluster_layer.links import Link, Links

SCAN_COUNT = 1000
_GLOB = re.compile(r"([*?\[\]\\])")


async def flush(links: Links) -> None:
    """Empty all shards, and wait until all processes say that they are, or their time is over."""
    await asyncio.gather(*(_flush_shard(link) for link in links.all()))


async def _flush_shard(link: Link) -> None:
    connection = await link.ready()
    keys = link.keys
    await _delete(connection, keys)
    token = secrets.token_hex(8)
    envelope = encode(CONTROL, 0, None, None, msgpack.packb({"op": "flush", "token": token}))
    processes = await connection.execute(("PUBLISH", keys.control, b"0:" + envelope))
    # A process that does not answer in time empties itself when it can.
    key, timeout_s = keys.reply(token), link.settings.timeout_s
    await answers.wait_for(connection, key, processes, timeout_s)
    await answers.take(connection, key)


async def _delete(connection: Connection, keys: Keys) -> None:
    """Delete queues and memberships, empty the inboxes.

    An inbox stays as an empty stream, so that its ids go on rising; the counters of positions stay
    for the same reason.
    """
    cursor = b"0"
    pattern = _GLOB.sub(r"\\\1", keys.base) + "*"
    inboxes = keys.inbox("")
    while True:
        cursor, found = await connection.execute(
            ("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        )
        doomed = [
            key
            for key in found
            if key not in (keys.seq, keys.entries) and not key.startswith(inboxes)
        ]
        trims = [("XTRIM", key, "MAXLEN", 0) for key in found if key.startswith(inboxes)]
        commands = [*trims, *([("UNLINK", *doomed)] if doomed else [])]
        if commands:
            await connection.execute(*commands)
        if cursor == b"0":
            return
