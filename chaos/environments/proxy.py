"""A TCP proxy whose faults are switched while connections are open."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

from cluster_layer.embedded import free_port

Direction = Literal["requests", "replies", "both"]

_CHUNK = 65536
_CALL_TIMEOUT_S = 10.0
_MAX_SLICES = 64
# Closing with this option sends a reset instead of an orderly end.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class TcpProxy:
    """Forwards 127.0.0.1:`port` to an upstream; runs in a thread of its own.

    Every switch returns when it is in force. `heal()` ends every fault, and `close()` the proxy.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self.connections_accepted = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.replies_lost = 0
        self.requests_halved = 0
        self.connections_cut = 0
        self.reads_disturbed = 0  # reads that were held, lost, delayed or sliced
        self._upstream = (upstream_host, upstream_port)
        self._links: set[_Link] = set()
        self._hang_up = False
        self._held: set[str] = set()
        self._swallowed: set[str] = set()
        self._delay_s = {"requests": 0.0, "replies": 0.0}
        self._jitter_s = 0.0
        self._slice: int | None = None
        self._halve = 0
        self._flowing = asyncio.Condition()
        self._traps: list[_Trap] = []
        self._listener: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        # Not one of the kernel's: while connections are refused, nobody else may be given it.
        self.port = free_port()
        self._call(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def connections_open(self) -> int:
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        self._call(self._cut())

    def refuse(self, on: bool = True, *, accept_first: bool = False) -> None:
        """Refuse new connections (or accept and close them at once); those that are open stay."""
        self._call(self._refuse(on, accept_first))

    def blackhole(self, direction: Direction = "both", *, swallow: bool = False) -> None:
        """Connections stay open and no byte passes until `heal()`, which then lets it pass.

        With `swallow` the bytes are taken and lost, and `heal()` resets the connections that lost
        any: half a stream would be garbage.
        """
        self._call(self._blackhole(direction, swallow))

    def delay(
        self, seconds: float, direction: Direction = "both", *, jitter_s: float = 0.0
    ) -> None:
        """Everything takes `seconds`, and up to `jitter_s`, longer, in order; 0 ends it."""
        self._call(self._set_delay(seconds, direction, jitter_s))

    def slice_bytes(self, size: int | None) -> None:
        """Forward pieces of at most this size, each in a packet of its own; None ends it.

        Only the first 64 pieces of a read: what follows adds time, not cases.
        """
        self._call(self._set_slice(size))

    def halve_requests(self, count: int) -> None:
        """Of each of the next `count` reads of requests half is forwarded, then all is reset."""
        self._call(self._set_halve(count))

    def retarget(self, host: str, port: int) -> None:
        """Send new connections elsewhere, and reset those that are open."""
        self._call(self._retarget(host, port))

    def lose_next_reply(self, match: bytes, count: int = 1) -> None:
        """The next `count` requests that contain `match` are executed, and their replies lost.

        The empty `match` is any request.

        The client's connection is reset only after the upstream has worked off the request, with
        all that was sent before it and in the same write.
        """
        self._call(self._set_trap(_Trap(match, count)))

    def heal(self) -> None:
        self._call(self._heal())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._call(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        # Not asyncio's server: one that is closed while it accepts leaves the new socket open.
        self._loop.add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client has given up already
        self.connections_accepted += 1
        if self._hang_up:
            client.close()
            return
        connection = self._loop.create_task(self._forward(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _forward(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            if self._hang_up:
                link.reset()
            else:
                await link.run()
        finally:
            self._links.discard(link)

    async def _cut(self) -> None:
        for link in list(self._links):
            self.connections_cut += 1
            link.reset()

    async def _refuse(self, on: bool, accept_first: bool) -> None:
        self._hang_up = on and accept_first
        if on and not accept_first:
            self._stop_listening()
        elif self._listener is None:
            await self._listen()

    async def _blackhole(self, direction: Direction, swallow: bool) -> None:
        (self._swallowed if swallow else self._held).update(_directions(direction))

    async def _set_delay(self, seconds: float, direction: Direction, jitter_s: float) -> None:
        self._jitter_s = jitter_s
        for one in _directions(direction):
            self._delay_s[one] = seconds

    async def _set_slice(self, size: int | None) -> None:
        self._slice = size

    async def _set_halve(self, count: int) -> None:
        self._halve = count

    async def _retarget(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        await self._cut()

    async def _set_trap(self, trap: "_Trap") -> None:
        self._traps.append(trap)

    async def _heal(self) -> None:
        await self._refuse(on=False, accept_first=False)
        self._held.clear()
        self._swallowed.clear()
        self._traps.clear()
        self._delay_s = dict.fromkeys(self._delay_s, 0.0)
        self._jitter_s = 0.0
        self._slice = None
        self._halve = 0
        for link in [link for link in self._links if link.damaged]:
            link.reset()
        async with self._flowing:
            self._flowing.notify_all()

    async def _shut_down(self) -> None:
        self._hang_up = True
        self._stop_listening()
        # They end by themselves once they are cut; cancelled while they connect they would leave
        # sockets open.
        while self._connections:
            await self._cut()
            await asyncio.wait(self._connections, timeout=0.05)
        # A transport closes its socket one round of the loop after it was closed itself.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def may_pass(self, direction: str) -> None:
        if direction not in self._held:
            return
        self.reads_disturbed += 1
        async with self._flowing:
            await self._flowing.wait_for(lambda: direction not in self._held)

    def swallows(self, direction: str) -> bool:
        return direction in self._swallowed

    def delay_of(self, direction: str) -> float:
        delay_s = self._delay_s[direction]
        return delay_s + random.uniform(0.0, self._jitter_s) if delay_s else 0.0

    def halves(self) -> bool:
        """Whether a request is to be cut in its middle; counts it as done."""
        if self._halve == 0:
            return False
        self._halve -= 1
        self.requests_halved += 1
        return True

    async def forward(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if (size := self._slice) is not None:
            self.reads_disturbed += 1
            for _ in range(_MAX_SLICES):
                writer.write(data[:size])
                await writer.drain()
                data = data[size:]
                await asyncio.sleep(0)
        if data:
            writer.write(data)
            await writer.drain()

    def sprung(self, recent: bytes) -> bool:
        """Whether a trap waits for these bytes; counts it as used."""
        for trap in self._traps:
            if trap.left > 0 and trap.match in recent:
                trap.left -= 1
                self.replies_lost += 1
                return True
        return False

    def longest_match(self) -> int:
        return max((len(trap.match) for trap in self._traps), default=1)


class _Trap:
    def __init__(self, match: bytes, left: int) -> None:
        self.match = match
        self.left = left


class _Link:
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
        _reset(self._client_writer)
        _reset(self._upstream_writer)
        # A pump may be waiting for held bytes to be let go.
        for pump in self._pumps:
            pump.cancel()

    async def _requests(self) -> None:
        recent = b""
        while data := await self._client_reader.read(_CHUNK):
            if not await self._admitted("requests"):
                continue
            recent += data
            # Before the write: the reply may be back before this task runs again.
            self._replies_lost = self._proxy.sprung(recent)
            if self._proxy.halves():
                await self._half(data)
                return
            self._proxy.bytes_to_server += len(data)
            await self._proxy.forward(self._upstream_writer, data)
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
        _reset(self._client_writer)

    async def _replies(self) -> None:
        while data := await self._upstream_reader.read(_CHUNK):
            if self._replies_lost or not await self._admitted("replies"):
                continue
            self._proxy.bytes_to_client += len(data)
            await self._proxy.forward(self._client_writer, data)
        if self._replies_lost:
            _reset(self._client_writer)
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


def _directions(direction: Direction) -> list[str]:
    return ["requests", "replies"] if direction == "both" else [direction]


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()
