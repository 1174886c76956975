"""A TCP proxy whose faults are switched while connections are open."""

import asyncio
import random
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self

from chaos.environments.proxy_link import ProxyLink, reset
from cluster_layer.embedded import free_port

Direction = Literal["requests", "replies", "both"]

_CALL_TIMEOUT_S = 10.0
_MAX_SLICES = 64
_THROTTLED_PIECE_S = 0.02


class ProxyThread:
    """A thread with an event loop, for as many proxies as there are."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(_CALL_TIMEOUT_S)

    def close(self) -> None:
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class TcpProxy:
    """Forwards 127.0.0.1:`port` to an upstream; runs in a thread of its own unless one is given.

    Every switch returns when it is in force. `heal()` ends every fault, and `close()` the proxy.
    """

    def __init__(
        self, upstream_host: str, upstream_port: int, *, thread: ProxyThread | None = None
    ) -> None:
        self.connections_accepted = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.replies_lost = 0
        self.requests_halved = 0
        self.connections_cut = 0
        self.reads_disturbed = 0  # reads that were held, lost, delayed, sliced or throttled
        self._upstream = (upstream_host, upstream_port)
        self._links: set[ProxyLink] = set()
        self._hang_up = False
        self._held: set[str] = set()
        self._swallowed: set[str] = set()
        self._delay_s = {"requests": 0.0, "replies": 0.0}
        self._jitter_s = 0.0
        self._slice: int | None = None
        self._bytes_per_s: float | None = None
        self._free_at = {"requests": 0.0, "replies": 0.0}  # when the next bytes may pass
        self._halve = 0
        self._closed = False
        self._flowing = asyncio.Condition()
        self._traps: list[_Trap] = []
        self._listener: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._own_thread = thread is None
        self._thread = thread or ProxyThread()
        self._loop = self._thread.loop
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

    def throttle(self, bytes_per_s: float | None) -> None:
        """Let no more than this pass each way, all connections together; None ends it."""
        self._call(self._set_throttle(bytes_per_s))

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
        if self._closed:
            return
        self._closed = True
        self._call(self._shut_down())
        if self._own_thread:
            self._thread.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._thread.call(coroutine)

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
        # asyncio does so for the sockets that it made itself; else replies wait for others to fill
        # a packet, 40 ms each.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
            reset(writer)
            return
        link = ProxyLink(self, (reader, writer), upstream)
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

    async def _set_throttle(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = dict.fromkeys(self._free_at, self._loop.time())

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
        self._bytes_per_s = None
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

    async def forward(self, writer: asyncio.StreamWriter, data: bytes, direction: str) -> None:
        while data and (rate := self._bytes_per_s) is not None:
            self.reads_disturbed += 1
            piece = max(1, int(rate * _THROTTLED_PIECE_S))
            now = self._loop.time()
            free_at = self._free_at[direction] = max(now, self._free_at[direction]) + (
                min(piece, len(data)) / rate
            )
            await asyncio.sleep(free_at - now)
            writer.write(data[:piece])
            await writer.drain()
            data = data[piece:]
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


def _directions(direction: Direction) -> list[str]:
    return ["requests", "replies"] if direction == "both" else [direction]
