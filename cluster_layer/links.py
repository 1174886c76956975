"""Command links to all shards: connect, keep alive, reconnect, follow the incarnation.

A *link* always has at most one connection. When it loses it, calls wait for the outcome of the
first attempt to reconnect, so that a short interruption costs a delay and no error; if that fails,
they fail at once, definitely, until an attempt succeeds. What was sent and not answered is never
sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

from cluster_layer.batching import Command
from cluster_layer.combining import Combiner
from cluster_layer.connection import Caller, Connection
from cluster_layer.counters import Counters
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.presence import Presence
from cluster_layer.routing import Routes
from cluster_layer.running import (
    ASK_WITHIN_S,
    BACKOFF_S,
    HEARTBEAT_S,
    Build,
    Homes,
    LinkSettings,
    Runner,
    redirection,
)
from cluster_layer.session import NothingListens
from cluster_layer.topologies import Topologies
from cluster_layer.writes import Append, Write
from topology.errors import ClusterError

logger = logging.getLogger("cluster_layer")

INTERRUPT_AGAIN_S = 0.01
RETIRE_CHECK_S = 0.02
TOLD_WITHIN_S = 0.002
FAREWELL_S = 0.5  # how long the end of a link may be delayed for it


class Link(Runner[Connection]):
    """The command connection to one shard, on the running loop."""

    def __init__(
        self,
        shard: str,
        endpoint: Endpoint,
        settings: LinkSettings,
        counters: Counters,
        topologies: Topologies,
        presence: Presence | None = None,
    ) -> None:
        """`presence` is what the process reports to the shard; None: nothing."""
        super().__init__(shard, endpoint, settings, counters, topologies, presence)
        self.watchers: list[
            Callable[[], None]
        ] = []  # called when it has come up, gone down, or failed to
        self._latest: Connection | None = None
        self._combiner: Combiner | None = None  # that of the latest connection
        self._retired = False
        self._refusal: str | None = None  # why the last attempt failed, until one succeeds
        self.loop = self._loop = asyncio.get_running_loop()
        self._attempt: asyncio.Future[Connection] = self._loop.create_future()
        self._task = self._loop.create_task(self._keep(), name=f"cluster_layer link {shard}")

    @property
    def ended(self) -> bool:
        """Whether its task is over: closed, or cancelled with everything else on the loop."""
        return self._task.done()

    async def ready(self) -> Connection:
        """The connection, or the outcome of the attempt under way. ShardUnavailable.

        At once if the last attempt has failed: who serves one message after another must not stand
        still for one shard.
        """
        if self.connection is not None:
            return self.connection
        if self._retired:
            raise redirection(self.shard)
        if self._refusal is not None:
            refusal = self._refusal
            # Whoever tries again at once must not keep the loop from connecting.
            await asyncio.sleep(0)
            raise ShardUnavailable(self.shard, refusal)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await asyncio.shield(self._attempt)
        except TimeoutError:
            raise ShardUnavailable(self.shard, "not connected") from None

    @property
    def trouble(self) -> str | None:
        """Why the shard can't be reached; None: it can, or nobody knows yet.

        A connection that was cut says nothing yet, one on which the shard fell silent does: another
        attempt takes as long again.
        """
        if self.connection is not None:
            return None
        latest = self._latest
        return self._refusal or (latest.lost if latest is not None and latest.fell_silent else None)

    def report(self) -> None:
        """Tell the shard about this process as soon as can be; it is told again anyway."""
        if self.connection is not None and self._presence is not None:
            command = self._presence.command(self.keys)
            self.connection.call((command,)).add_done_callback(_look_at)

    async def asked(self, connection: Connection, *commands: Command) -> Any:
        async with asyncio.timeout(ASK_WITHIN_S):  # that others wait for more there is no reason
            return await connection.execute(*commands)

    def combined(self, write: Write) -> Awaitable[Any] | None:
        connection = self.connection
        if type(write) is not Append or self._combiner is None or connection is None:
            return None
        if not connection.busy:  # who writes one after the other is alone, and the first may be
            return None
        answer = self._loop.create_future()
        self._combiner.add(write, answer)
        return answer

    def post(self, connection: Connection, write: Write, waiter: Caller) -> float:
        """As `run`, without waiting and without a second try; the monotonic time of its fence.

        The waiter gets the reply, an error reply too, or ShardUnavailable or DeliveryUnknown; after
        the latter, see `settled`.
        """
        if type(write) is Append and self._combiner is not None:
            return self._combiner.add(write, waiter)
        fence = monotonic() + self.settings.timeout_s
        command = self._command(connection, write.script, write.epoch, write.build, fence)
        connection.post((command,), waiter, fence)
        return fence

    async def settled(self, fence: float, life: str) -> None:
        while (left_s := fence - monotonic()) > 0:
            if self.connection is not None:
                if self.keys.incarnation == life:
                    return
                await self.connection.stays(left_s)
                continue
            try:
                async with asyncio.timeout(left_s):
                    await asyncio.shield(self._attempt)
            except NothingListens:
                return
            except (ShardUnavailable, TimeoutError):
                continue

    def shard_time_ms(self) -> float:
        """The shard's clock by the latest connection's idea of it; 0 before there was one."""
        return self._latest.shard_time_ms() if self._latest is not None else 0.0

    def interrupt(self, other: Connection | None, again: Callable[[], object]) -> None:
        """End the blocking read of another connection to this shard, as if its time were over.

        `again` is called soon if the read had not begun to block. If the shard can't be told, the
        read ends when its time is over.
        """
        if other is None or other.lost is not None or self.connection is None:
            return

        def told(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None and future.result() == 0:
                self._loop.call_later(INTERRUPT_AGAIN_S, again)

        command = ("CLIENT", "UNBLOCK", other.client_id)
        self.connection.call((command,)).add_done_callback(told)

    async def close(self) -> None:
        if self.connection is not None and self._presence is not None:
            with contextlib.suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self.connection.execute(*self._presence.farewell(self.keys))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail_attempt(ShardUnavailable(self.shard, "closed"))

    async def retire(self) -> None:
        """The topology has no such shard any more: take in the answers that are due, then close.

        Whoever waits for a connection is redirected at once.
        """
        self._retired = True
        self._fail_attempt(redirection(self.shard))
        deadline = monotonic() + self.settings.timeout_s
        while (connection := self.connection) is not None and connection.busy:
            if monotonic() > deadline or not await connection.stays(RETIRE_CHECK_S):
                break
        await self.close()

    # -- internals

    async def _told_elsewhere(self) -> None:
        await asyncio.sleep(TOLD_WITHIN_S)

    async def _keep(self) -> None:
        pause_s = 0.0
        while True:
            try:
                await self._connect_and_live()
                pause_s = 0.0
                continue
            except Exception as error:  # noqa: BLE001 - a link that ends would never come up again
                self._failed(self.unavailable(error), first=pause_s == 0.0)
            pause_s = min(max(pause_s * 2, BACKOFF_S[0]), BACKOFF_S[1])
            # Jitter: many processes lose the same shard at the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _connect_and_live(self) -> None:
        """Return when a connection that had come up is lost."""
        connection = await self._open()
        try:
            await self._live(connection)
        finally:
            connection.close()

    async def _open(self) -> Connection:
        connection = await Connection.open(
            self.endpoint,
            self.shard,
            connect_timeout_s=self.settings.connect_timeout_s,
            timeout_s=self.settings.timeout_s,
        )
        await self.prepare(connection)
        return connection

    async def _live(self, connection: Connection) -> None:
        """Use a connection until it is lost."""
        connection.on_lost = self._went_down
        self._came_up(connection)
        while await connection.stays(HEARTBEAT_S):
            try:
                await self.look(connection)
            except (ShardUnavailable, DeliveryUnknown) as error:
                connection.close(error.reason)
        logger.warning("shard %s: connection lost (%s)", self.shard, connection.lost)

    def _combiner_over(self, connection: Connection) -> Combiner:
        def post(write: Write, build: Build, waiter: Caller, fence: float) -> None:
            command = self._command(connection, write.script, write.epoch, build, fence)
            connection.post((command,), waiter, fence)

        return Combiner(connection, post)

    def _came_up(self, connection: Connection) -> None:
        if self.keys.incarnation:
            self._counters.shards[self.shard].reconnects += 1
        self.keys = self.keys_of(connection.incarnation)
        self.connection = self._latest = connection
        self._combiner = self._combiner_over(connection)
        self._refusal = None
        if not self._attempt.done():
            self._attempt.set_result(connection)
        logger.info("shard %s: connected, incarnation %s", self.shard, connection.incarnation)
        self._notify()

    def _went_down(self) -> None:
        self.connection = None
        self._attempt = self._loop.create_future()
        self._notify()

    def _failed(self, error: ShardUnavailable, *, first: bool) -> None:
        if first:
            logger.warning("shard %s is unavailable (%s)", self.shard, error.reason)
        self._refusal = error.reason
        self._fail_attempt(error)
        self._attempt = self._loop.create_future()
        self._notify()

    def _fail_attempt(self, error: ShardUnavailable) -> None:
        if not self._attempt.done():
            self._attempt.set_exception(error)
            self._attempt.exception()  # nobody may have waited for it

    def _notify(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


def _look_at(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer, and its failure shows elsewhere."""
    if not future.cancelled():
        future.exception()


class Links(Homes[Link]):
    """The links of one loop, one per shard, made when first used.

    `routes` are the ones that this loop goes by: it changes between two steps of the loop, never
    within one.
    """

    def __init__(
        self,
        topologies: Topologies,
        settings: LinkSettings,
        counters: Counters,
        presence: Presence | None = None,
    ) -> None:
        self.topologies = topologies
        self._routes = topologies.routes
        self.settings = settings
        self._counters = counters
        self._presence = presence
        self._links: dict[str, Link] = {}
        self._unreachable: frozenset[str] = frozenset()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> Routes:
        return self._routes

    async def together(self, works: Sequence[Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*works)

    def follow(self) -> None:
        """Go by the newest routes; links to shards that are gone, or live elsewhere now, end."""
        if self._routes is self.topologies.routes:
            return
        self._routes = self.topologies.routes
        endpoints = self.routes.endpoints()
        for shard, link in list(self._links.items()):
            if endpoints.get(shard) != link.endpoint:
                del self._links[shard]
                task = link.loop.create_task(link.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def to(self, shard: str) -> Link:
        """The link to a shard. Redirected: the topology has none of that id that is not down."""
        link = self._links.get(shard)
        if link is None or link.ended:
            endpoint = self.routes.endpoints().get(shard)
            if endpoint is None:
                raise redirection(shard)
            link = Link(
                shard, endpoint, self.settings, self._counters, self.topologies, self._presence
            )
            link.watchers.append(self._changed)
            link.neighbours = self._all_made
            self._links[shard] = link
        return link

    def _all_made(self) -> list[Link]:
        return list(self._links.values())

    def all(self) -> list[Link]:
        """A link to every shard of the topology that is not down."""
        return [self.to(shard) for shard in self.routes.endpoints()]

    def connected(self) -> dict[str, bool]:
        return {shard: link.connection is not None for shard, link in list(self._links.items())}

    def unreachable(self) -> dict[str, str]:
        """Shard id -> why, for those that this loop has tried to reach and can't."""
        links = list(self._links.items())
        return {shard: link.trouble for shard, link in links if link.trouble is not None}

    def _changed(self) -> None:
        """A link has come up or gone down: who decides about shards must not wait to hear of it."""
        unreachable = frozenset(self.unreachable())
        if unreachable != self._unreachable:
            self._unreachable = unreachable
            self.report()

    def report(self) -> None:
        """Tell all shards about this process as soon as can be."""
        for link in self._links.values():
            link.report()

    async def close(self) -> None:
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(link.close() for link in links))
        await asyncio.gather(*self._retiring, return_exceptions=True)
