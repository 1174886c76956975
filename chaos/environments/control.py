"""Commands to a server by itself: past all proxies, and past the layer that is under test."""

from __future__ import annotations

import asyncio
from typing import Self, TypeAlias

from topology.errors import ClusterError

Reply: TypeAlias = "bytes | int | list[Reply] | None"

TIMEOUT_S = 10.0


class CommandFailed(ClusterError):
    """A server or a process refused a command of the suite, or did not answer."""


class Console:
    """One connection that stays open, as an administrator has, in whose place nobody else comes."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> Self:
        """CommandFailed if there is nobody."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._streams = await asyncio.open_connection(*self._address)
        except (OSError, TimeoutError) as error:
            raise self._failed("connecting", error) from error
        return self

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()

    async def ask(self, *command: str) -> Reply:
        """Run one command; CommandFailed with the server's words, or if it does not answer."""
        assert self._streams is not None  # noqa: S101 - entered
        reader, writer = self._streams
        words = [word.encode() for word in command]
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(b"*%d\r\n%b" % (len(words), b"".join(parts)))
                return await _reply(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise self._failed(command[0], error) from error

    def _failed(self, what: str, error: Exception) -> CommandFailed:
        host, port = self._address
        return CommandFailed(f"{what} on port {port} of {host}: {error!r}")


async def ask(port: int, *command: str, host: str = "127.0.0.1") -> Reply:
    """Run one command on the server at this port; CommandFailed."""
    console = await Console(port, host).open()
    try:
        return await console.ask(*command)
    finally:
        await console.close()


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
