"""One auto-pipelined connection to one shard.

Once it is open (`opening.py`), all commands of one loop tick share one write, replies are matched
in order, nothing is ever sent again, and a reply that is overdue breaks the connection, because
behind it every later reply would be late as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, Self

import hiredis

from cluster_layer.batching import Batch, Command, Waiter
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.opening import open_transport
from cluster_layer.session import Session

if TYPE_CHECKING:
    from cluster_layer.endpoints import Endpoint

MAX_PENDING = 100_000  # commands; more than this would not be answered within any deadline
WRITE_AT = 128  # posted commands that do not wait for the end of the tick
HIGH_WATER_BYTES = 1 << 20  # above this much in the socket's buffer, commands stay unsent
CHECK_S = 0.1  # how late an overdue reply may be noticed
LOOK_S = 0.005  # for the loop to look at its sockets

_NOTHING = object()


class Caller(Waiter, Protocol):
    """A waiter that is also told why there is no reply; an ``asyncio.Future`` is one."""

    def set_exception(self, error: Any, /) -> None: ...


class Connection(asyncio.Protocol, Session):
    """A socket to a shard, its incarnation, and the commands in flight on it.

    Use `open`. All methods belong to the loop on which it was opened.
    """

    def __init__(self, shard: str, timeout_s: float) -> None:
        Session.__init__(self, shard, timeout_s)
        self.fell_silent = False  # lost because an answer was overdue
        self._loop = asyncio.get_running_loop()
        self._batch = Batch()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._flush_due = False
        self._paused = False
        self._received = 0  # reads that brought something
        #: Called before a write, and when the connection is lost, for commands that are not put
        #: together yet.
        self.post_rest: Callable[[], None] | None = None
        self._checker: asyncio.TimerHandle | None = None  # while an answer is due

    @classmethod
    async def open(
        cls, endpoint: Endpoint, shard: str, *, connect_timeout_s: float, timeout_s: float
    ) -> Self:
        """Connect and learn the incarnation. ShardUnavailable: it can't be used now."""
        connection = await cls.connect(
            endpoint, shard, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s
        )
        try:
            await connection.identify()
        except DeliveryUnknown as error:
            raise ShardUnavailable(shard, error.reason) from error
        finally:
            if not connection.incarnation:
                connection.close("not opened")
        return connection

    @classmethod
    async def connect(
        cls, endpoint: Endpoint, shard: str, *, connect_timeout_s: float, timeout_s: float
    ) -> Self:
        """Connect, and ask nothing: also of a replica, or as a user who may do little.

        ShardUnavailable.
        """
        connection = cls(shard, timeout_s)
        try:
            connection._adopt(await open_transport(endpoint, shard, connect_timeout_s))
        except BaseException:
            connection.close("not opened")
            raise
        return connection

    # -- calls

    def call(self, commands: Sequence[Command], timeout_s: float | None = None) -> Any:
        """Queue commands for this tick's write; a future of the reply (several: of a list).

        Replies may be `hiredis.ReplyError` values: use `execute` to have them raised. The future
        raises ShardUnavailable (never written) or DeliveryUnknown.
        """
        future = self._loop.create_future()
        if self._queue(commands, future, monotonic() + (timeout_s or self.timeout_s)):
            self.write_soon()
        return future

    def post(self, commands: Sequence[Command], waiter: Caller, deadline: float) -> None:
        """As `call`, for a waiter of the caller's own; `deadline` in monotonic time.

        Who does not wait may queue many in one tick: they leave in several writes, so that the
        shard has something to do meanwhile.
        """
        if self._queue(commands, waiter, deadline):
            if self._batch.unsent < WRITE_AT:
                self.write_soon()
            else:
                self._flush()

    @property
    def busy(self) -> bool:
        """Whether an answer is due."""
        return len(self._batch) > 0

    async def stays(self, seconds: float) -> bool:
        """Whether the connection is still there after so long; returns early if it is lost."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            pass
        return self.lost is None

    def close(self, reason: str = "closed") -> None:
        """Give the connection up: unsent commands fail as definite, sent ones as unknown."""
        if self.lost is not None:
            return
        self.lost = reason
        self._gone.set()
        if self._checker is not None:
            self._checker.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self.post_rest is not None:
            self.post_rest()
        unsent, sent = self._batch.abandon()
        _fail(unsent, ShardUnavailable, self.shard, reason)
        _fail(sent, DeliveryUnknown, self.shard, reason)
        if self.on_lost is not None:
            self.on_lost()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        self._received += 1
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                self._on_reply(reply)
        except (hiredis.HiredisError, IndexError) as error:
            self.close(f"it does not speak Redis's protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.close(f"connection lost: {error}" if error else "connection closed by the shard")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # -- internals

    def _adopt(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        transport.set_protocol(self)
        transport.resume_reading()

    def _queue(self, commands: Sequence[Command], waiter: Caller, deadline: float) -> bool:
        """Queue commands for the next write; False: the waiter has been told why not."""
        if self.lost is not None:
            waiter.set_exception(ShardUnavailable(self.shard, self.lost))
        elif len(self._batch) >= MAX_PENDING:
            waiter.set_exception(ShardUnavailable(self.shard, f"{MAX_PENDING} commands wait"))
        else:
            self._batch.add(commands, waiter, deadline)
            return True
        return False

    def _on_reply(self, reply: Any) -> None:
        self._batch.resolve(reply)

    def write_soon(self) -> None:
        """Write at the end of this step of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _overdue(self, now: float) -> bool:
        return self._batch.overdue(now)

    def _flush(self) -> None:
        if self.post_rest is not None:
            self.post_rest()
        if self._checker is None and self.lost is None:
            self._checker = self._loop.call_later(CHECK_S, self._check)
        self._flush_due = False
        if self._paused or self.lost is not None or self._transport is None:
            return
        data = self._batch.take()
        if data:
            self._transport.write(data)

    def _check(self) -> None:
        if self._overdue(monotonic()):
            # A process that was stopped is woken with its timers first: the answer may be here.
            self._checker = self._loop.call_later(LOOK_S, self._judge, self._received)
        elif self.busy:
            self._checker = self._loop.call_later(CHECK_S, self._check)
        else:  # most connections are at rest most of the time: no timer for them
            self._checker = None

    def _judge(self, received: int) -> None:
        """An answer was overdue when so many reads had brought something."""
        if self._received == received and self._overdue(monotonic()):
            self.fell_silent = True
            self.close(f"no answer within {self.timeout_s:g} s")
        else:
            self._check()


def _fail(
    waiters: Sequence[Any],
    error: type[ShardUnavailable] | type[DeliveryUnknown],
    shard: str,
    reason: str,
) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error(shard, reason))
