"""How a script is run on a shard: fence, epochs, refusals and their remedies, redirections.

The rules are here once, for both ways of waiting. They are coroutines that wait for nothing but
the connection under them: over an asyncio connection (`links.py`) a loop drives them, over a
blocking one (`blocking.py`) they never suspend and run to their end in the calling thread.
"""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.counters import Counters
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.presence import Presence, Teller
from cluster_layer.routing import Routes
from cluster_layer.scripts import Script
from cluster_layer.session import CommandRefused, Session
from cluster_layer.topologies import Topologies
from cluster_layer.writes import Write
from topology.codec import encode
from topology.errors import ClusterError
from topology.model import Topology

logger = logging.getLogger("cluster_layer")

S = TypeVar("S", bound=Session)

HEARTBEAT_S = 1.0
# Counters of positions and the epoch must not begin anew while somebody is connected.
COUNTER_TTL_MS = 30 * 86_400_000
KEEP_ALIVE_S = 600.0  # between extensions of that time
# Every redirection follows a newer topology: more of them within one call is a defect somewhere.
MAX_REDIRECTIONS = 16
# Before a shard is brought a topology: how long it may wait for what another one says to that.
ASK_WITHIN_S = 0.5
# What can be wrong with one call: the scripts, the clock, the topology; each once, and one more.
MAX_REMEDIES = 4
BACKOFF_S = (0.05, 1.0)  # first and longest pause between attempts to connect

# The command was not executed, and asking anew can help: the primary moved, a script was flushed.
_STALE_CONNECTION = ("READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED")


# What a script's keys and arguments are, once it is known which keys the shard has.
Build = Callable[[Keys], tuple[Sequence[bytes], Command]]


class Redirected(CommandRefused):
    """The shard serves a newer topology, which is known here by now: look for the home again."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What every connection of a layer has in common. Times in seconds."""

    prefix: str
    timeout_s: float
    connect_timeout_s: float
    of_layer: bool = True  # False: of whoever runs the cluster, who may touch no layer's counters


class Runner(ABC, Generic[S]):
    """Runs scripts on one shard; subclasses say how its connection comes up and goes down."""

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
        self.shard = shard
        self.endpoint = endpoint
        self.settings = settings
        self.connection: S | None = None
        self._topologies = topologies
        self._presence = presence
        self._teller = None if presence is None else Teller(presence)
        self._keep_alive_at = 0.0
        self._counters = counters
        self.keys = self.keys_of("")
        self.served = 0  # the epoch that the shard was last seen to serve
        self.neighbours: Callable[[], Iterable[Runner[S]]] = tuple  # of the same place

    @abstractmethod
    async def ready(self) -> S:
        """The connection. ShardUnavailable: there is none to be had now."""

    @abstractmethod
    async def settled(self, fence: float, life: str) -> None:
        """Return when a command that was not answered can't be executed any more.

        That is so when its fence has passed (monotonic time), when the shard's process is gone, or
        when the shard has answered on a new connection in the same life: by then it has read the
        old one to its end. From another life, nobody learns what has become of the last one.
        """

    async def asked(self, connection: S, *commands: Command) -> Any:
        """The replies within ASK_WITHIN_S. ClusterError, TimeoutError."""
        return await connection.execute(*commands, timeout_s=ASK_WITHIN_S)

    def combined(self, write: Write) -> Awaitable[Any] | None:
        """The reply to a write that leaves in one call with others; None: it can't."""
        del write
        return None

    def keys_of(self, incarnation: str) -> Keys:
        """The keys of this layer on one life of this shard."""
        cluster = self._topologies.topology.cluster
        return Keys(self.settings.prefix, cluster, incarnation, self.endpoint.db)

    async def run(
        self, script: Script, epoch: int, build: Build, write: Write | None = None
    ) -> Any:
        """Run a script that begins with fence.lua; `build(keys)` gives its other keys, arguments.

        `write` is what it is for, if it may leave in one call with others: see `combined`.
        `epoch` is that of the routes by which this shard was chosen. Redirected: the shard is ahead
        of them. ShardUnavailable: not executed. DeliveryUnknown: it may have been executed, and if
        it has not been until now it never will.
        """
        counters = self._counters.shards[self.shard]
        attempts = 0
        while True:
            attempts += 1
            try:
                connection = self.connection or await self.ready()
            except Redirected:
                raise
            except ShardUnavailable:
                counters.refused += 1
                raise
            fence = monotonic() + self.settings.timeout_s
            life = self.keys.incarnation
            # What was refused goes its own way: it may be to blame alone.
            answer = None if write is None or attempts > 1 else self.combined(write)
            if answer is None:
                command = self._command(connection, script, epoch, build, fence)
                answer = connection.call((command,))
            try:
                reply = await answer
            except ShardUnavailable:
                counters.refused += 1
                raise
            except DeliveryUnknown:
                counters.unknown += 1
                await self.settled(fence, life)
                raise
            refusal = connection.refusal(reply)
            if refusal is None:
                return reply
            if "STALE" in refusal.reason:
                await self._catch_up(epoch)
                raise Redirected(self.shard, refusal.reason)
            if attempts > MAX_REMEDIES or not await self.remedied(connection, refusal, script):
                counters.refused += 1
                raise refusal

    async def align(self) -> int:
        """Bring the newer topology to the side that lacks it; the epoch that the shard serves now.

        ShardUnavailable, DeliveryUnknown: it may not have come through.
        """
        return await self._align(await self.ready(), self.keys)

    async def remedied(self, connection: S, refusal: CommandRefused, script: Script) -> bool:
        """Whether one more try makes sense: the refused command provably was not executed."""
        try:
            return await self._remedy(connection, refusal, script)
        except CommandRefused as error:  # of the remedy
            if not _is_of_a_stale_connection(error.reason):
                raise
            connection.close(error.reason)
            return True
        except DeliveryUnknown as error:  # as above
            raise ShardUnavailable(self.shard, error.reason) from error

    async def prepare(self, connection: S) -> None:
        """Make a new connection fit for use. ShardUnavailable: it can't be."""
        try:
            await self._load_scripts(connection)
            # Before anybody uses the link: who is behind must not write, nor join, by old routes.
            keys = self.keys_of(connection.incarnation)
            await self._align(connection, keys)
            if self._teller is not None:
                # Nor may a change be decided without whoever takes part from now on.
                await connection.execute(self._teller.anew(keys, monotonic()))
        except DeliveryUnknown as error:
            raise ShardUnavailable(self.shard, error.reason) from error
        except BaseException:
            connection.close()
            raise

    async def look(self, connection: S) -> None:
        """Once in a while: compare clocks, lives and epochs, and report.

        One write and one answer, unless there is news: every process does this to every shard.
        ShardUnavailable, DeliveryUnknown: it can't be asked, or has become another life.
        """
        keys, cluster, now = self.keys, self.keys.cluster, monotonic()
        told: list[Command] = []
        if self._teller is not None:
            told.append(self._teller.next(keys, connection.shard_time_ms(now), now))
        served, *replies = await connection.compare(
            ("GET", cluster.epoch), *told, *self._extensions(keys, now)
        )
        if self._teller is not None and replies[0] == 0:  # emptied, or another loop has left
            await connection.execute(self._teller.anew(keys, now))
        self.served = int(served or 0)
        if self.served != self._topologies.routes.epoch:
            await self._align(connection, keys)

    def unavailable(self, error: Exception) -> ShardUnavailable:
        """What an attempt to connect has failed with, as an error of ours."""
        if isinstance(error, ShardUnavailable):
            return error
        logger.error("shard %s: cannot connect", self.shard, exc_info=error)
        return ShardUnavailable(self.shard, repr(error))

    # -- internals

    def _command(
        self, connection: S, script: Script, epoch: int, build: Build, fence: float
    ) -> Command:
        keys, arguments = build(self.keys)
        fence_ms = int(connection.shard_time_ms(fence))
        head = ("EVALSHA", script.sha, len(keys) + 1, self.keys.cluster.epoch)
        return (*head, *keys, fence_ms, epoch, *arguments)

    async def _catch_up(self, epoch: int) -> None:
        """Get the newer topology that this shard serves. ShardUnavailable: it can't be had."""
        if self._topologies.routes.epoch > epoch:
            await self._told_elsewhere()
            return
        try:
            await self.align()
        except DeliveryUnknown as error:  # reading it: what the caller wants was not executed
            raise ShardUnavailable(self.shard, error.reason) from error
        if self._topologies.routes.epoch <= epoch:
            raise ShardUnavailable(
                self.shard, "it serves a newer topology than ours and keeps no usable copy of it"
            )

    async def _told_elsewhere(self) -> None:
        """Let whoever goes by older routes hear of those that another thread has brought."""

    async def _align(self, connection: S, keys: Keys) -> int:
        ours = self._topologies.topology
        served = int(await connection.execute(("GET", keys.cluster.epoch)) or 0)
        if served < ours.epoch:
            # We may have missed an epoch: a blank shard must not be told what is over.
            await self._ask_neighbour(ours.epoch)
            ours = self._topologies.topology
            served = int(await connection.execute(self._installation(ours, keys)))
        self.served = served
        if served > ours.epoch:
            self._topologies.offer_encoded(
                await connection.execute(("GET", keys.cluster.topology)) or b""
            )
        return served

    async def _ask_neighbour(self, epoch: int) -> None:
        """Get the topology of another shard, if that is newer; if it can't be asked, go on.

        One of those that we are connected to, at once: nobody waits for a connection here.
        """
        connected = [
            (runner, runner.connection)
            for runner in self.neighbours()
            if runner is not self and runner.connection is not None
        ]
        if not connected:
            return
        neighbour, connection = max(connected, key=lambda one: one[0].served)
        keys = neighbour.keys.cluster
        with contextlib.suppress(ClusterError, TimeoutError):
            served = int(await self.asked(connection, ("GET", keys.epoch)) or 0)
            if served > epoch:
                found = await self.asked(connection, ("GET", keys.topology))
                self._topologies.offer_encoded(found or b"")

    def _installation(self, topology: Topology, keys: Keys) -> Command:
        cluster = keys.cluster
        return (
            *("EVALSHA", scripts.TOPOLOGY_INSTALL.sha, 2, cluster.epoch, cluster.topology),
            *(topology.epoch, encode(topology), cluster.announcements),
        )

    async def _remedy(self, connection: S, refusal: CommandRefused, script: Script) -> bool:
        reason = refusal.reason
        if "NOSCRIPT" in reason:
            await self._load_scripts(connection, script)
            return True
        if "AHEAD" in reason:
            await self.align()  # it has been emptied since we came, or nobody else was here yet
            return True
        if "LATE" in reason:
            await connection.identify()  # our idea of the shard's clock was wrong
            return True
        if _is_of_a_stale_connection(reason):
            connection.close(reason)
            return True
        return False

    async def _load_scripts(self, connection: S, *more: Script) -> None:
        wanted = dict.fromkeys((*scripts.ALL, *more))
        await connection.execute(*(("SCRIPT", "LOAD", script.text) for script in wanted))

    def _extensions(self, keys: Keys, now: float) -> list[Command]:
        """Now and then: keep alive what must not begin anew."""
        if now < self._keep_alive_at:
            return []
        self._keep_alive_at = now + KEEP_ALIVE_S
        counters = (keys.seq, keys.entries) if self.settings.of_layer else ()
        kept = (*counters, keys.cluster.epoch, keys.cluster.topology)
        return [("PEXPIRE", key, COUNTER_TTL_MS) for key in kept]


def _is_of_a_stale_connection(reason: str) -> bool:
    return any(word in reason for word in _STALE_CONNECTION)


def redirection(shard: str) -> Redirected:
    """The error of a call for a shard that the topology has no more."""
    return Redirected(shard, "the topology has no such shard any more")


R = TypeVar("R", bound=Runner[Any])


class Homes(ABC, Generic[R]):
    """The runners of one place, one per shard, made when first used."""

    topologies: Topologies
    settings: LinkSettings

    @property
    @abstractmethod
    def routes(self) -> Routes:
        """The ones to go by."""

    @abstractmethod
    def to(self, shard: str) -> R:
        """The runner of a shard. Redirected: the topology has none of that id that is not down."""

    @abstractmethod
    async def together(self, works: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Have all of these done; in what order, if any, is open."""

    async def run_at_home(self, name: str, script: Script, build: Build) -> tuple[str, Any]:
        """Run a script where this name is written to; its shard and the reply. See `Link.run`."""
        for _ in range(MAX_REDIRECTIONS):
            routes = self.routes
            shard = routes.shard_of(name)
            try:
                return shard, await self.to(shard).run(script, routes.epoch, build)
            except Redirected:
                continue
        raise self.restless(name)

    def restless(self, name: str) -> ShardUnavailable:
        """The error of a call that was redirected too often."""
        reason = f"the topology changed {MAX_REDIRECTIONS} times during one call"
        return ShardUnavailable(self.routes.shard_of(name), reason)
