"""Links whose calls block the calling thread: no event loop, no second thread, no switch between.

The rules are those of `running.py`; its coroutines never suspend here, because everything that they
wait for is done in the calling thread (`finish`). A connection is looked at, as a link's heartbeat
does, when it is used after more than HEARTBEAT_S: nobody would do it in between.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import hiredis

from cluster_layer.batching import Command, pack
from cluster_layer.counters import Counters
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.opening import open_socket
from cluster_layer.routing import Routes
from cluster_layer.running import BACKOFF_S, HEARTBEAT_S, Homes, LinkSettings, Runner, redirection
from cluster_layer.session import NothingListens, Session
from cluster_layer.topologies import Topologies

if TYPE_CHECKING:
    from cluster_layer.endpoints import Endpoint

T = TypeVar("T")

READ_BYTES: Final = 16_384
LEAST_S: Final = 0.001  # a timeout of 0 would mean something else

_NOTHING: Final = object()


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but blocking links to its end, here."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(f"{work!r} waits for an event loop, and there is none")


class BlockingConnection(Session):
    """A socket to a shard; one call at a time, each until its answer is here."""

    def __init__(
        self, shard: str, timeout_s: float, connected: socket.socket, until: float = inf
    ) -> None:
        """`until`: when it has to be ready for use, whatever that takes (monotonic time)."""
        super().__init__(shard, timeout_s)
        self._until = until
        self._socket = connected
        self._socket.settimeout(timeout_s)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        shard: str,
        *,
        connect_timeout_s: float,
        timeout_s: float,
        until: float,
    ) -> BlockingConnection:
        """Connect and learn the incarnation. ShardUnavailable: it can't be used now."""
        connect_timeout_s = min(connect_timeout_s, max(until - monotonic(), LEAST_S))
        opened = open_socket(endpoint, shard, connect_timeout_s)
        connection = cls(shard, timeout_s, opened, until)
        try:
            await connection.identify()
        except DeliveryUnknown as error:
            raise ShardUnavailable(shard, error.reason) from error
        finally:
            if not connection.incarnation:
                connection.close("not opened")
        return connection

    async def call(self, commands: Sequence[Command], timeout_s: float | None = None) -> Any:
        """See `Session.call`; if it is interrupted, the connection is given up."""
        if self.lost is not None:
            raise ShardUnavailable(self.shard, self.lost)
        data = pack(commands[0]) if len(commands) == 1 else b"".join(map(pack, commands))
        deadline = monotonic() + (timeout_s or self.timeout_s)
        if deadline > self._until:
            deadline = self._until
            self._socket.settimeout(max(deadline - monotonic(), LEAST_S))
        try:
            self._socket.sendall(data)
            replies = self._replies(len(commands), deadline)
        except TimeoutError:
            self._fail(f"no answer within {timeout_s or self.timeout_s:g} s")
        except OSError as error:
            self._fail(f"connection lost: {error}")
        except hiredis.HiredisError as error:
            self._fail(f"it does not speak Redis's protocol: {error}")
        except BaseException:  # a signal's handler has raised: the answer is yet to come
            self.close("interrupted")
            raise
        return replies[0] if len(commands) == 1 else replies

    def notice_end(self) -> None:
        """Between calls: see whether the shard has closed it, before anything is written to it."""
        if self._poll.poll(0):
            self._take_in_news()

    def is_ready(self) -> None:
        """From now on each call has its own deadline."""
        self._until = inf
        self._socket.settimeout(self.timeout_s)

    def close(self, reason: str = "closed") -> None:
        if self.lost is None:
            self.lost = reason
            self._socket.close()
            if self.on_lost is not None:
                self.on_lost()

    # -- internals

    def _replies(self, count: int, deadline: float) -> list[Any]:
        replies: list[Any] = []
        reader, connected = self._reader, self._socket
        reader.feed(self._received())
        while True:
            reply = reader.gets()
            if reply is not _NOTHING:
                replies.append(reply)
                if len(replies) == count:
                    return replies
                continue
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise TimeoutError
            connected.settimeout(left_s)
            try:
                reader.feed(self._received())
            finally:
                connected.settimeout(self.timeout_s)

    def _received(self) -> bytes:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("closed by the shard")
        return data

    def _fail(self, reason: str) -> NoReturn:
        self.close(reason)
        raise DeliveryUnknown(self.shard, reason) from None

    def _take_in_news(self) -> None:
        """Something has come without being asked for: the end, or TLS's own business."""
        try:
            self._socket.settimeout(0)
            data = self._socket.recv(READ_BYTES)
            self.close(
                "it sent what nobody asked for" if data else "connection closed by the shard"
            )
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(self.timeout_s)
        except OSError as error:
            self.close(f"connection lost: {error}")


@dataclass(slots=True)
class Outage:
    """The last attempt to connect has failed; the next one may be made at `until`."""

    error: ShardUnavailable
    pause_s: float
    until: float


class BlockingLink(Runner[BlockingConnection]):
    """The command connection to one shard, of one seat."""

    def __init__(
        self,
        shard: str,
        endpoint: Endpoint,
        settings: LinkSettings,
        counters: Counters,
        topologies: Topologies,
        outages: dict[str, Outage],
    ) -> None:
        """`outages` are known to all seats: shard id -> how the last attempt failed."""
        super().__init__(shard, endpoint, settings, counters, topologies)
        self._outages = outages
        self._rested: BlockingConnection | None = None  # to be looked at before it is used
        self._look_at = 0.0

    def rouse(self) -> None:
        """Before a call: a connection that nobody has looked at for a while has to be."""
        if self.connection is None:
            return
        if monotonic() > self._look_at:
            self._rested, self.connection = self.connection, None
        else:
            self.connection.notice_end()

    async def ready(self) -> BlockingConnection:
        if self.connection is not None:
            return self.connection
        rested, self._rested = self._rested, None
        if rested is not None:
            try:
                await self.look(rested)
            except (ShardUnavailable, DeliveryUnknown) as error:
                rested.close(error.reason)
            if rested.lost is None:
                return self._use(rested)
        outage = self._outages.get(self.shard)
        if outage is not None and monotonic() < outage.until:
            raise ShardUnavailable(self.shard, outage.error.reason)
        return await self._connect(monotonic() + self.settings.timeout_s)

    async def settled(self, fence: float, life: str) -> None:
        while (left_s := fence - monotonic()) > 0:
            if self.connection is not None and self.keys.incarnation == life:
                return
            try:
                if self.connection is None:
                    await self._connect(fence)
                    continue
            except NothingListens:
                return
            except ShardUnavailable:
                pass
            time.sleep(min(left_s, BACKOFF_S[0]))  # noqa: ASYNC251 - there is no loop

    def close(self) -> None:
        for connection in (self.connection, self._rested):
            if connection is not None:
                connection.close()

    # -- internals

    async def _connect(self, until: float) -> BlockingConnection:
        settings = self.settings
        try:
            connection = await BlockingConnection.open(
                self.endpoint,
                self.shard,
                connect_timeout_s=settings.connect_timeout_s,
                timeout_s=settings.timeout_s,
                until=until,
            )
            await self.prepare(connection)
        except Exception as failure:
            error = self.unavailable(failure)
            previous = self._outages.get(self.shard)
            pause_s = BACKOFF_S[0] if previous is None else previous.pause_s * 2
            pause_s = min(pause_s, BACKOFF_S[1])
            self._outages[self.shard] = Outage(error, pause_s, monotonic() + pause_s)
            raise error from failure
        connection.is_ready()
        self._outages.pop(self.shard, None)
        if self.keys.incarnation:
            self._counters.shards[self.shard].reconnects += 1
        self.keys = self.keys_of(connection.incarnation)
        return self._use(connection)

    def _use(self, connection: BlockingConnection) -> BlockingConnection:
        connection.on_lost = self._went_down
        self.connection = connection
        self._look_at = monotonic() + HEARTBEAT_S
        return connection

    def _went_down(self) -> None:
        self.connection = None


class BlockingLinks(Homes[BlockingLink]):
    """The links of one seat."""

    def __init__(
        self,
        topologies: Topologies,
        settings: LinkSettings,
        counters: Counters,
        outages: dict[str, Outage],
    ) -> None:
        self.topologies = topologies
        self.settings = settings
        self._counters = counters
        self._outages = outages
        self._links: dict[str, BlockingLink] = {}

    @property
    def routes(self) -> Routes:
        return self.topologies.routes

    def to(self, shard: str) -> BlockingLink:
        endpoint = self.topologies.routes.endpoints().get(shard)
        link = self._links.get(shard)
        if link is not None and link.endpoint == endpoint:
            link.rouse()
            return link
        if link is not None:
            del self._links[shard]
            link.close()
        if endpoint is None:
            raise redirection(shard)
        link = self._links[shard] = BlockingLink(
            shard, endpoint, self.settings, self._counters, self.topologies, self._outages
        )
        link.neighbours = self._all_made
        return link

    def _all_made(self) -> list[BlockingLink]:
        return list(self._links.values())

    async def together(self, works: Sequence[Coroutine[Any, Any, None]]) -> None:
        waiting = list(works)
        try:
            while waiting:
                await waiting.pop(0)
        finally:
            for work in waiting:
                work.close()

    def notice_ends(self) -> None:
        """Between calls: see which shards have closed their connections."""
        for link in self._links.values():
            if link.connection is not None:
                link.connection.notice_end()

    def connected(self) -> list[str]:
        """Ids of the shards to which a connection is open."""
        return [shard for shard, link in list(self._links.items()) if link.connection is not None]

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
