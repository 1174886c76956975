"""Where a layer's work is done: a runtime per living loop, one node per process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from cluster_layer.census import Questioner
from cluster_layer.config import Config
from cluster_layer.counters import Counters
from cluster_layer.crypto import Cipher
from cluster_layer.errors import ConfigError
from cluster_layer.links import Links
from cluster_layer.loops import Ages, BackgroundLoop, background_loop, run_on
from cluster_layer.metrics.measured import MeasuredWriter, writer_class
from cluster_layer.node import Node, NodeState
from cluster_layer.presence import Presence
from cluster_layer.routing import Routes
from cluster_layer.running import Homes, LinkSettings
from cluster_layer.seats import Seats
from cluster_layer.topologies import Topologies, fixed_topologies, why_unusable
from cluster_layer.unconfirmed import Poster
from cluster_layer.writer import Writer
from topology.errors import StoreConfigError
from topology.follower import Follower
from topology.model import Topology
from topology.ports import TopologyStore
from topology.stores import open_store

OPEN_S = 10.0  # how long the first call may wait for a topology
HAND_OVER_S = 1.0  # how long the end of a loop may be delayed for what was joined on it


class Runtime:
    """The sending side on one loop."""

    def __init__(
        self,
        topologies: Topologies,
        config: Config,
        counters: Counters,
        cipher: Cipher | None,
        presence: Presence,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.links = Links(topologies, _settings_of(config), counters, presence)
        self.writer = _writer_over(self.links, config, counters, cipher)
        self.questioner = Questioner(self.links)
        self.poster = Poster(self.writer, self.links, counters, config.on_gap)

    async def close(self) -> None:
        await self.poster.close()
        await self.links.close()


class Hosts:
    """Decides which loop a call is served by, and keeps what lives there.

    Thread-safe. A loop that has been closed takes its runtime with it; if the node was there, it
    goes on in the background with its names, cursors and messages.
    """

    def __init__(
        self, config: Config, process_id: str, counters: Counters, cipher: Cipher | None
    ) -> None:
        self.opened = False
        self._topologies: Topologies
        self._process_id = process_id
        self._presence: Presence
        self._config = config
        self._counters = counters
        self._cipher = cipher
        self._state = NodeState(process_id, config, counters)
        self._seats: Seats | None = None
        self._lock = threading.RLock()
        self._ages = Ages()
        # Made now, so that a mistake in its URL or options shows at once; connects at `open`.
        self._store = _store_of(config)
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._follower: Follower | None = None
        self.node: Node | None = None
        self._previous: Node | None = None

    @property
    def epoch(self) -> int:
        """Epoch of the topology in use; 0 before the first call."""
        return self.routes.epoch if self.opened else 0

    @property
    def routes(self) -> Routes:
        """The newest routes, once it is open."""
        return self._topologies.routes

    def open(self) -> None:
        """Read the topology; blocks. TopologyError: there is none to be had."""
        with self._lock:
            if self.opened:
                return
            config = self._config
            if config.topology is None:
                self._topologies = fixed_topologies(config.hosts)
            else:
                store, self._store = self._store or _store_of(config), None
                assert store is not None  # noqa: S101 - there is a topology
                self._follower = follower = Follower(
                    store,
                    config.topology_cache,
                    why_not=lambda topology: why_unusable(topology, config.endpoint_for),
                )
                self._topologies = Topologies(follower.start(OPEN_S), config.endpoint_for)
                follower.subscribe(self._follow_store)
                self._topologies.offer(follower.current)  # one may have come in between
            self._topologies.follow(self._follow)
            self._presence = Presence(
                self._process_id,
                config.prefix,
                epoch=lambda: self._topologies.routes.epoch,
                unreachable=self._unreachable,
            )
            self.opened = True

    def sender(self) -> Runtime:
        """The runtime that serves a call from the running loop."""
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is not None:
            return runtime
        if self._ages.is_living(loop):
            return self.own_runtime()
        return self._background_runtime()[1]

    def seats(self) -> Seats:
        """What threads without a loop write with."""
        seats = self._seats
        if seats is not None:
            return seats
        with self._lock:
            if self._seats is None:
                config, counters, cipher = self._config, self._counters, self._cipher
                self._seats = Seats(
                    self._topologies,
                    _settings_of(config),
                    counters,
                    lambda links: _writer_over(links, config, counters, cipher),
                )
            return self._seats

    def receiver(self) -> Node:
        """The node; on the running loop if there was none."""
        node = self.node
        if node is not None and node.alive:
            return node
        with self._lock:
            if self.node is None:
                self.node = self._make_node(self.own_runtime())
            elif not self.node.alive:
                self._move_to_background(self.node)
            return self.node

    def own_runtime(self) -> Runtime:
        """The running loop's own runtime, made if need be."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for closed in [other for other in self._runtimes if other.is_closed()]:
                del self._runtimes[closed]
            runtime = self._runtimes.get(loop)
            if runtime is None:
                runtime = self._runtimes[loop] = self._make_runtime()
                self._follow_on(runtime)  # newer routes may have come before it was known
            return runtime

    def runtimes(self) -> list[Runtime]:
        """Those of all loops."""
        return list(self._runtimes.values())

    def connected(self) -> dict[str, bool]:
        """Shard id -> whether any loop of this process is connected to it."""
        if not self.opened:
            return {}
        connected = dict.fromkeys(self.routes.endpoints(), False)
        for runtime in self.runtimes():
            for shard, up in runtime.links.connected().items():
                if shard in connected:  # its loop may not have heard that there is no such shard
                    connected[shard] = connected[shard] or up
        if self._seats is not None:
            connected |= {shard: True for shard in self._seats.connected() if shard in connected}
        return connected

    def _follow_store(self, topology: Topology) -> None:
        self._topologies.offer(topology)

    def _unreachable(self) -> dict[str, str]:
        """Shard id -> why, for those that no loop of this process reaches."""
        reasons: dict[str, str] = {}
        for runtime in list(self._runtimes.values()):
            reasons |= runtime.links.unreachable()
        connected = self.connected()
        return {shard: why for shard, why in reasons.items() if not connected.get(shard)}

    def _follow(self) -> None:
        """There is a newer topology; called by whichever thread has brought it."""
        for runtime in list(self._runtimes.values()):
            if runtime.loop is _running_loop():
                self._follow_on(runtime)
            elif runtime.loop.is_running():
                with contextlib.suppress(RuntimeError):  # it has been closed just now
                    runtime.loop.call_soon_threadsafe(self._follow_on, runtime)
        if self._follower is not None:  # last: it may write a file, and loops wait for the news
            self._follower.offer(self._topologies.topology)

    def _follow_on(self, runtime: Runtime) -> None:
        """On the loop of a runtime: one step, so that nothing there sees half of a change."""
        runtime.links.follow()
        node = self.node
        if node is not None and node.loop is runtime.loop and not node.closed:
            node.follow()

    def abandon(self) -> None:
        """Close in the background what lives there; for a layer that nobody holds any more."""
        if self._seats is not None:
            self._seats.close()
        for loop in list(self._runtimes):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(self._close_on_loop(loop), loop)

    async def _close_on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        runtime = self._runtimes.pop(loop, None)
        node, self.node = self.node, None
        if node is not None and node.loop is loop:
            await node.close()
        if runtime is not None:
            await runtime.close()

    async def close(self) -> None:
        """Disconnect, on whichever loop. Memberships and messages stay for the next call."""
        with self._lock:
            node, self.node = self.node, None
            self._previous = node or self._previous
            runtimes, self._runtimes = list(self._runtimes.values()), {}
            follower, self._follower = self._follower, None
            seats, self._seats = self._seats, None
            self.opened = False
        if seats is not None:
            seats.close()
        if node is not None:
            await _close_on(node.loop, node)
        for runtime in runtimes:
            await _close_on(runtime.loop, runtime)
        if follower is not None:
            await asyncio.to_thread(follower.close)

    # -- internals

    def _background_runtime(self) -> tuple[BackgroundLoop, Runtime]:
        background = background_loop()
        runtime = self._runtimes.get(background.loop)
        if runtime is None and background.loop is _running_loop():
            return background, self.own_runtime()
        if runtime is None:
            with self._lock:
                runtime = self._runtimes.get(background.loop)
                if runtime is None:
                    runtime = background.call(self._make_runtime)
                    self._runtimes[background.loop] = runtime
                    background.loop.call_soon_threadsafe(self._follow_on, runtime)
        return background, runtime

    def _make_runtime(self) -> Runtime:
        return Runtime(self._topologies, self._config, self._counters, self._cipher, self._presence)

    def _make_node(self, runtime: Runtime) -> Node:
        self._presence.receives = True
        node = Node(
            self._state,
            runtime.links,
            self._config,
            self._counters,
            self._on_cancelled,
            self._presence,
        )
        if self._previous is not None:
            node.adopt(self._previous)
            self._previous = None
        return node

    def _move_to_background(self, node: Node) -> Node:
        """Go on elsewhere with what a node had whose loop is at its end, or beyond it."""
        background, runtime = self._background_runtime()
        self._previous = node
        self.node = background.call(lambda: self._make_node(runtime))
        background.loop.call_soon_threadsafe(self._follow_on, runtime)  # as for a runtime
        return self.node

    async def _on_cancelled(self, node: Node) -> None:
        """The loop of the node ends: it was made for one call, and the next one relies on it."""
        with self._lock:
            if self.node is not node:
                return
            node.stop()
            successor = self._move_to_background(node)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await run_on(successor.loop, successor.ready())


def _settings_of(config: Config) -> LinkSettings:
    return LinkSettings(config.prefix, config.timeout, config.connect_timeout)


def _writer_over(
    links: Homes[Any], config: Config, counters: Counters, cipher: Cipher | None
) -> Writer:
    expiry_ms = round(config.expiry * 1000)
    writer = writer_class(config)(links, counters, cipher, config.capacity_of, expiry_ms)
    if isinstance(writer, MeasuredWriter):
        writer.metrics = config.metrics
    return writer


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a thread without one
        return None


def _store_of(config: Config) -> TopologyStore | None:
    """The store of the settings; None: there is a fixed list of hosts. ConfigError."""
    if config.topology is None:
        return None
    try:
        return open_store(config.topology.url, **config.topology.options)
    except StoreConfigError as error:
        raise ConfigError(f"CONFIG topology: {error}") from error


async def _close_on(loop: asyncio.AbstractEventLoop, what: Any) -> None:
    """Close what lives on a loop; what lived on a dead one is gone already."""
    if loop is asyncio.get_running_loop():
        await what.close()
    elif loop.is_running():
        await run_on(loop, what.close())
