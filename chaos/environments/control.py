"""Commands to a server by itself: past all proxies, and past the layer that is under test."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from topology.errors import ClusterError

Reply: TypeAlias = "bytes | int | list[Reply] | None"

TIMEOUT_S = 10.0


class CommandFailed(ClusterError):
    """A server refused a command of the suite, or did not answer."""


async def ask(port: int, *command: str) -> Reply:
    """Run one command on the server at this port of 127.0.0.1; CommandFailed."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _ask(port, command)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise CommandFailed(f"{command[0]} on port {port}: {error!r}") from error


async def _ask(port: int, command: tuple[str, ...]) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        words = [word.encode() for word in command]
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        writer.write(b"*%d\r\n%b" % (len(words), b"".join(parts)))
        return await _reply(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise CommandFailed(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    if kind == b"*":
        return [await _reply(reader) for _ in range(int(rest))]
    return rest
