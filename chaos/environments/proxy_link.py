"""One connection through a proxy."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chaos.environments.proxy import TcpProxy

CHUNK: Final = 65536
# Closing with this option sends a reset instead of an orderly end.
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class ProxyLink:
    """One client's connection and its twin to the upstream."""

    def __init__(
        self,
        proxy: TcpProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._upstream_reader, self._upstream_writer = upstream
        self._replies_lost = False
        self._pumps: list[asyncio.Task[None]] = []
        self.damaged = False

    async def run(self) -> None:
        self._pumps = [
            asyncio.create_task(self._requests()),
            asyncio.create_task(self._replies()),
        ]
        try:
            await asyncio.gather(*self._pumps)
        except OSError:
            self.reset()
        finally:
            for pump in self._pumps:
                pump.cancel()
            self._client_writer.close()
            self._upstream_writer.close()

    def reset(self) -> None:
        reset(self._client_writer)
        reset(self._upstream_writer)
        # A pump may be waiting for held bytes to be let go.
        for pump in self._pumps:
            pump.cancel()

    async def _requests(self) -> None:
        recent = b""
        while data := await self._client_reader.read(CHUNK):
            if not await self._admitted("requests"):
                continue
            recent += data
            # Before the write: the reply may be back before this task runs again.
            self._replies_lost = self._proxy.sprung(recent)
            if self._proxy.halves():
                await self._half(data)
                return
            self._proxy.bytes_to_server += len(data)
            await self._proxy.forward(self._upstream_writer, data, "requests")
            if self._replies_lost:
                break
            # A match may begin in one read and end in the next.
            recent = recent[max(0, len(recent) - self._proxy.longest_match() + 1) :]
        # The upstream works off what it has before it sees the end; _replies waits for that.
        self._upstream_writer.write_eof()

    async def _half(self, data: bytes) -> None:
        """The upstream sees half a request and then the end."""
        self._upstream_writer.write(data[: len(data) // 2])
        await self._upstream_writer.drain()
        self._upstream_writer.write_eof()
        reset(self._client_writer)

    async def _replies(self) -> None:
        while data := await self._upstream_reader.read(CHUNK):
            if self._replies_lost or not await self._admitted("replies"):
                continue
            self._proxy.bytes_to_client += len(data)
            await self._proxy.forward(self._client_writer, data, "replies")
        if self._replies_lost:
            reset(self._client_writer)
        self._client_writer.close()
        # A client that has gone on sending would otherwise keep _requests waiting.
        self._client_reader.feed_eof()

    async def _admitted(self, direction: str) -> bool:
        """Waits while bytes are held or delayed; false when these are lost."""
        if delay_s := self._proxy.delay_of(direction):
            self._proxy.reads_disturbed += 1
            await asyncio.sleep(delay_s)
        await self._proxy.may_pass(direction)
        if self._proxy.swallows(direction):
            self._proxy.reads_disturbed += 1
            self.damaged = True
            return False
        return True


def reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()
