"""The channel layer of the Channels specification, on many Redis shards."""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

from channels.layers import BaseChannelLayer

from cluster_layer import errors, lossy
from cluster_layer.buffers import Loss, Parcel
from cluster_layer.census import Questioner
from cluster_layer.config import Config
from cluster_layer.counters import Counters, ShardCounters
from cluster_layer.crypto import cipher_of
from cluster_layer.envelope import Message, encode_body
from cluster_layer.errors import DecryptFailed, LayerClosed, MalformedEnvelope, NotOurChannel
from cluster_layer.flush import flush
from cluster_layer.health import Health, through_all
from cluster_layer.hosts import Hosts, Runtime
from cluster_layer.loops import Handover, forks, is_for_one_call, run_on, runs_here
from cluster_layer.many import send_many
from cluster_layer.marks import Trail
from cluster_layer.metrics.measured import measured, writer_class
from cluster_layer.names import (
    inbox_name,
    is_process_specific,
    require_channel_name,
    require_group_name,
)
from cluster_layer.node import Node
from cluster_layer.receivers import NodeClosed, Receivers
from cluster_layer.terms import USUAL, Terms, terms_of
from cluster_layer.trails import Past, PastCell, recall, remember, settled
from cluster_layer.unconfirmed import SETTLING_TIMEOUTS
from cluster_layer.writer import TrailCell, Writer
from topology.errors import ClusterError

T = TypeVar("T")


class ClusterChannelLayer(BaseChannelLayer):
    """Channels and groups, hashed onto many Redis shards; at most once, never twice.

    The arguments are the CONFIG of the settings; ConfigError names what is wrong with them. Nothing
    is opened before the first call. Safe to share between threads, event loops and forks.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = errors.ChannelFull
    MessageTooLarge = errors.MessageTooLarge

    def __init__(self, **config: Any) -> None:
        self.config = Config.from_dict(config)
        super().__init__(expiry=self.config.expiry, capacity=self.config.capacity)
        self.channel_capacity = self.config.channel_capacity
        self.group_expiry = self.config.group_expiry
        self.prefix = self.config.prefix
        self._confirm = self.config.confirm
        self._cipher = cipher_of(self.config.symmetric_encryption_keys)
        self._decipher = None if self._cipher is None else self._cipher.open
        self._scope = self.config.scope
        lossy.warn(self.config)
        self._metrics = self.config.metrics
        self._writing = writer_class(self.config)
        self._begin()
        if self._metrics is not None:
            self._metrics.watch(self)

    def _begin(self) -> None:
        """Begin as a process of our own: a new process id, nothing open."""
        self._forks = forks()
        self._process_id = secrets.token_hex(8)
        self._counters = Counters()
        self._hosts = Hosts(self.config, self._process_id, self._counters, self._cipher)
        # A layer that is dropped without close() must not go on in the background.
        self._finalizer = weakref.finalize(self, self._hosts.abandon)
        self._finalizer.atexit = False

    # -- the specification

    async def send(
        self,
        channel: str,
        message: Message,
        *,
        confirm: bool | None = None,
        expiry: float | None = None,
    ) -> None:
        """Send a message to a channel; None is what the CONFIG says.

        ChannelFull, MessageTooLarge, InvalidMessage, InvalidName, ShardUnavailable: it was not
        sent. DeliveryUnknown: it may have been. With `confirm=False` it returns once the message is
        queued, and raises only what is wrong with the message or the name. `expiry` in seconds, at
        most that of the CONFIG.
        """
        require_channel_name(channel)
        terms = USUAL if expiry is None else terms_of(expiry, (), self.expiry)
        body = encode_body(message, self.config.message_size_limit)
        runtime = self._sender() or await self._first_sender()
        if self._confirm if confirm is None else confirm:
            await self._write(runtime, self._writing.send, channel, body, terms)
        elif not self._queue(runtime, runtime.poster.send, channel, body, terms):
            await self._queue_in_turn(runtime, runtime.poster.send_in_turn, channel, body, terms)

    async def receive(self, channel: str) -> Message:
        """The next message of a channel.

        Given the part of a process-specific channel up to ``!``, the next message of any channel
        that begins so. Waits as long as it takes, through every outage; cancelling loses nothing.
        """
        node = self._node_here(channel)
        if node is not None:
            here = node.receivers
            # The frequent case, in a single coroutine: every member of a group goes through here
            # for every message.
            while not here.closed:
                parcel = here.take(channel)
                if parcel is None:
                    await here.message_for(channel)
                    continue
                try:
                    return parcel.open(self._decipher)
                except (DecryptFailed, MalformedEnvelope) as error:
                    self._drop(error)
            self._require_open(channel)
        return (await self.receive_from(channel))[1]

    async def receive_from(self, channel: str) -> tuple[str, Message]:
        """Like `receive`, with the full name of the channel that the message was sent to."""
        node = self._node_here(channel)
        if node is None:
            require_channel_name(channel)
            if is_process_specific(channel):
                self._require_ours(channel)
            node = await self._node()
        while True:
            try:
                name, parcel = await self._next(node, channel)
            except NodeClosed:
                self._require_open(channel)
                node = await self._node()
                continue
            try:
                return name, parcel.open(self._decipher)
            except (DecryptFailed, MalformedEnvelope) as error:
                self._drop(error)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A new name of a channel that only this process receives."""
        name = f"{prefix}.{self._checked_process_id()}!{secrets.token_hex(8)}"
        require_channel_name(name)
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group, or renew its membership.

        ShardUnavailable: not added. DeliveryUnknown: it may have been, if another process serves
        it.
        """
        require_group_name(group)
        require_channel_name(channel)
        await self._all_answered()
        if self._is_ours(channel):
            node = await self._node()
            await self._timed("group_add", group, _on(node, node.join(group, channel)))
            return
        runtime = self._sender() or await self._first_sender()
        storing = runtime.writer.store_member(group, channel, self._group_expiry_ms)
        await self._timed("group_add", group, _on(runtime, storing))

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; nothing if it is not in it.

        ShardUnavailable, DeliveryUnknown: a channel of this process is out of the group as far as
        this process is concerned; a channel of another one may go on getting messages.
        """
        require_group_name(group)
        require_channel_name(channel)
        await self._all_answered()
        node = self._hosts.node
        if node is not None and self._is_ours(channel):
            node = await self._node()
            await self._timed("group_discard", group, _on(node, node.leave(group, channel)))
            return
        runtime = self._sender() or await self._first_sender()
        removing = runtime.writer.remove_member(group, channel, self._group_expiry_ms)
        await self._timed("group_discard", group, _on(runtime, removing))

    async def group_send(
        self,
        group: str,
        message: Message,
        *,
        confirm: bool | None = None,
        expiry: float | None = None,
        exclude: Collection[str] = (),
    ) -> None:
        """Send a message to every member of a group; full channels miss it.

        MessageTooLarge, InvalidMessage, InvalidName, ShardUnavailable: nobody gets it.
        DeliveryUnknown: everybody or nobody does. `confirm` and `expiry` as in `send`. `exclude`:
        members that do not get it, at most 1,000.
        """
        require_group_name(group)
        usual = expiry is None and not exclude
        terms = USUAL if usual else terms_of(expiry, exclude, self.expiry)
        body = encode_body(message, self.config.message_size_limit)
        runtime = self._sender() or await self._first_sender()
        if self._confirm if confirm is None else confirm:
            await self._write(runtime, self._writing.group_send, group, body, terms)
        elif not self._queue(runtime, runtime.poster.group_send, group, body, terms):
            in_turn = runtime.poster.group_send_in_turn
            await self._queue_in_turn(runtime, in_turn, group, body, terms)

    async def flush(self) -> None:
        """Empty all channels and groups of this prefix, in every process.

        Returns when all processes have confirmed, or after a deadline. ShardUnavailable,
        DeliveryUnknown: some shards may not be empty.
        """
        runtime = self._sender() or await self._first_sender()
        await _on(runtime, flush(runtime.links))

    async def close(self) -> None:
        """Close every connection; the next call opens them anew.

        Memberships stay, and so do messages that have arrived for this process's channels; those
        that were popped from a normal channel go back to it. Whoever waits in receive() gets
        LayerClosed.
        """
        self._checked_process_id()  # what the parent of a fork has opened is not ours to close
        await self._hosts.close()

    # -- beyond it

    async def close_pools(self) -> None:
        """The name that channels_redis has for `close`."""
        await self.close()

    async def send_many(
        self, messages: Iterable[tuple[str, Message]], *, expiry: float | None = None
    ) -> list[ClusterError | None]:
        """Send many messages at once: (channel, message), in order for each channel.

        Returns for each of them None, or the error that `send` would have raised; after one the
        others are sent all the same. MessageTooLarge, InvalidMessage, InvalidName: none was sent.
        """
        limit = self.config.message_size_limit
        batch = []
        for channel, message in messages:
            require_channel_name(channel)
            batch.append((channel, encode_body(message, limit)))
        terms = terms_of(expiry, (), self.expiry)
        runtime = self._sender() or await self._first_sender()
        past = recall(self._scope)
        cell = TrailCell(past if isinstance(past, Trail) else await self._settled(past))
        try:
            return await _on(runtime, send_many(runtime.writer, batch, cell, terms))
        finally:
            remember(self._scope, cell.trail)

    async def channel_close(self, channel: str) -> None:
        """End a process-specific channel of this process: its memberships, and what waits for it.

        ShardUnavailable, DeliveryUnknown: it has ended all the same, but another process may have
        stored it as a member of a group as well, and senders go on with that for `group_expiry`.
        Who still waits in receive() on it goes on waiting.
        """
        require_channel_name(channel)
        self._require_ours(channel)
        await self._all_answered()
        node = await self._node()
        await _on(node, node.close_channel(channel))

    async def group_channels(self, group: str, *, timeout: float | None = None) -> frozenset[str]:
        """The names of a group's members: those whom a message would reach that is sent now.

        AnswersMissing: not all processes have answered within `timeout` seconds (None: that of the
        CONFIG). ShardUnavailable: the group's shard can't be asked.
        """
        return await self._ask(Questioner.channels, group, timeout)

    async def group_count(self, group: str, *, timeout: float | None = None) -> int:
        """How many members a group has; as `group_channels`, without fetching the names."""
        return await self._ask(Questioner.count, group, timeout)

    async def group_exists(self, group: str, *, timeout: float | None = None) -> bool:
        """Whether a group has a member; as `group_channels`, and one answer with one will do."""
        return await self._ask(Questioner.exists, group, timeout)

    async def open(self) -> None:
        """Say that this event loop lives: it gets connections of its own from the first call on."""
        await self._ensure_open()
        self._hosts.own_runtime()

    async def wait_for_confirms(self) -> None:
        """Return when it is known of all unconfirmed messages until now what became of them."""
        for runtime in self._hosts.runtimes():
            if runtime.loop.is_running():
                await _on(runtime, runtime.poster.all_answered())

    async def locate(self, name: str) -> str:
        """Id of the shard that serves a channel or a group."""
        await self._ensure_open()
        return self._hosts.routes.shard_of(inbox_name(name))

    async def health(self, *, timeout: float | None = None) -> Health:
        """Send to itself through every shard; each within `timeout` s (None: that of the CONFIG).

        What a shard does not carry is in the result, not raised. Only TopologyError is: there is
        none to be had.
        """
        timeout_s = self.config.timeout if timeout is None else timeout
        await self._ensure_open()
        routes = self._hosts.routes
        shards = await through_all(self, sorted(routes.owners()), timeout_s)
        node = self._hosts.node
        return Health(routes.epoch, shards, tuple(node.stalled) if node is not None else ())

    def stats(self) -> dict[str, Any]:
        """What this process counted.

        ``epoch``, ``process``, ``shards``, ``lost``, ``stalled``: readers that make no progress,
        and ``unconfirmed``: what became of messages sent with `confirm=False` that did not get
        through, or perhaps not.
        """
        node = self._hosts.node
        counted = self._counters.as_dict()
        connected = self._hosts.connected()
        shards = {
            shard: {"connected": up, **counted["shards"].get(shard, asdict(ShardCounters()))}
            for shard, up in connected.items()
        }
        return {
            "epoch": self._hosts.epoch,
            "process": self._process_id,
            "shards": shards,
            "lost": counted["lost"],
            "stalled": list(node.stalled) if node is not None else [],
            "unconfirmed": counted["unconfirmed"],
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r}, process={self._process_id})"

    # -- internals

    def _timed(
        self, verb: str, group: str, work: Coroutine[Any, Any, None]
    ) -> Coroutine[Any, Any, None]:
        """The work, measured if there is a metrics hook."""
        if self._metrics is None:
            return work
        return measured(self._metrics, self.prefix, verb, group, self._hosts.routes, work)

    async def _ask(
        self,
        question: Callable[[Questioner, str, float], Coroutine[Any, Any, T]],
        group: str,
        timeout: float | None,
    ) -> T:
        require_group_name(group)
        timeout_s = self.config.timeout if timeout is None else timeout
        await self._all_answered()
        runtime = self._sender() or await self._first_sender()
        return await _on(runtime, question(runtime.questioner, group, timeout_s))

    async def _write(
        self,
        runtime: Runtime,
        write: Callable[[Writer, str, bytes, TrailCell, Terms], Coroutine[Any, Any, None]],
        name: str,
        body: bytes,
        terms: Terms,
    ) -> None:
        past = recall(self._scope)
        cell = TrailCell(past if isinstance(past, Trail) else await self._settled(past))
        try:
            if runs_here(runtime.loop):
                await write(runtime.writer, name, body, cell, terms)
            elif is_for_one_call(asyncio.get_running_loop()):
                with self._hosts.seats().seat(name) as seat:
                    await write(seat.writer, name, body, cell, terms)
            else:
                await run_on(runtime.loop, write(runtime.writer, name, body, cell, terms))
        finally:
            remember(self._scope, cell.trail)

    def _queue(
        self,
        runtime: Runtime,
        queue: Callable[[str, bytes, Past, Terms], Past | None],
        name: str,
        body: bytes,
        terms: Terms,
    ) -> bool:
        """Queue an unconfirmed write; False: that can't be without waiting."""
        if not runs_here(runtime.loop):
            return False
        past = recall(self._scope)
        queued = queue(name, body, past, terms)
        if queued is None:
            return False
        if queued is not past:
            remember(self._scope, queued)
        return True

    async def _queue_in_turn(
        self,
        runtime: Runtime,
        queue: Callable[[str, bytes, PastCell, Terms], Coroutine[Any, Any, None]],
        name: str,
        body: bytes,
        terms: Terms,
    ) -> None:
        cell = PastCell(recall(self._scope))
        try:
            await _on(runtime, queue(name, body, cell, terms))
        finally:
            remember(self._scope, cell.past)

    async def _all_answered(self) -> None:
        """What this task has sent without waiting comes before what it changes now."""
        past = recall(self._scope)
        if not isinstance(past, Trail) and past.on_their_way:
            remember(self._scope, await self._settled(past))

    def _settled(self, past: Past) -> Coroutine[Any, Any, Trail]:
        return settled(past, SETTLING_TIMEOUTS * self.config.timeout)

    @property
    def _group_expiry_ms(self) -> int:
        return round(self.config.group_expiry * 1000)

    def _checked_process_id(self) -> str:
        """The process id; a fork makes another process of us."""
        if self._forks != forks():
            self._finalizer.detach()  # what the parent opened is not ours to close
            self._begin()
        return self._process_id

    def _is_ours(self, channel: str) -> bool:
        return f".{self._checked_process_id()}!" in channel  # a name has one "!" at most

    def _require_ours(self, channel: str) -> None:
        if not self._is_ours(channel):
            raise NotOurChannel(
                f"channel {channel!r} belongs to another process: only the process whose "
                "new_channel() made it can receive it"
            )

    async def _ensure_open(self) -> None:
        self._checked_process_id()
        if not self._hosts.opened:
            await asyncio.to_thread(self._hosts.open)

    def _sender(self) -> Runtime | None:
        """The runtime that serves the running loop; None: the topology is not known yet."""
        hosts = self._hosts
        return hosts.sender() if hosts.opened and self._forks == forks() else None

    async def _first_sender(self) -> Runtime:
        await self._ensure_open()
        return self._hosts.sender()

    def _node_here(self, channel: str) -> Node | None:
        """The node, if it lives on this loop and knows the full name: the frequent case."""
        node = self._hosts.node
        if node is None or self._forks != forks() or not runs_here(node.loop):
            return None
        receivers = node.receivers
        box = None if receivers.closed else receivers.mailboxes.find(channel)
        return node if box is not None and box.watched else None

    def _require_open(self, channel: str) -> None:
        """The node that a receiver waited at has ended; LayerClosed if it has no successor."""
        if self._hosts.node is None:
            raise LayerClosed(f"closed while receive({channel!r}) waited") from None

    async def _node(self) -> Node:
        await self._ensure_open()
        return self._hosts.receiver()

    async def _next(self, node: Node, channel: str) -> tuple[str, Parcel]:
        if runs_here(node.loop):
            return await node.receivers.receive(channel)
        handover: Handover[tuple[str, Parcel]] = Handover()
        waiting = asyncio.run_coroutine_threadsafe(
            _receive(node.receivers, channel, handover), node.loop
        )
        try:
            await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:
            received = handover.close()
            if received is not None:
                node.loop.call_soon_threadsafe(node.receivers.put_back, *received)
            if not node.alive and not _is_cancelling():
                raise NodeClosed from None  # its loop has ended, not we
            raise
        received = handover.close()
        assert received is not None  # noqa: S101 - it was put before the future was done
        return received

    def _drop(self, error: DecryptFailed | MalformedEnvelope) -> None:
        """What can't be read is dropped and counted."""
        unreadable = Loss.MALFORMED if isinstance(error, MalformedEnvelope) else Loss.UNDECIPHERABLE
        self._counters.lose(unreadable)


async def _receive(
    receivers: Receivers, channel: str, handover: Handover[tuple[str, Parcel]]
) -> None:
    """On the node's loop: hand the next message over, or keep it."""
    received = await receivers.receive(channel)
    if not handover.put(received):
        receivers.put_back(*received)


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _on(host: Runtime | Node, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Run work where its host lives."""
    return work if runs_here(host.loop) else run_on(host.loop, work)
