"""The channel layer for programs without asyncio: scripts, Celery tasks, WSGI views.

Sends block in the calling thread until their shard has answered (`blocking.py`). What is received
comes through one background loop per process, where memberships and inboxes live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

from cluster_layer import errors
from cluster_layer.blocking import finish
from cluster_layer.buffers import Parcel
from cluster_layer.choosing import Turns, look_at, next_of
from cluster_layer.envelope import Message, encode_body
from cluster_layer.errors import DecryptFailed, InvalidName, MalformedEnvelope
from cluster_layer.layer import ClusterChannelLayer
from cluster_layer.loops import Handover, background_loop
from cluster_layer.names import (
    is_process_specific,
    require_channel_name,
    require_group_name,
)
from cluster_layer.node import Node
from cluster_layer.receivers import NodeClosed
from cluster_layer.terms import USUAL, Terms, terms_of
from cluster_layer.trails import PastCell, recall, remember, settled_here
from cluster_layer.unconfirmed import SETTLING_TIMEOUTS
from cluster_layer.writer import TrailCell, Writer
from topology.errors import ClusterError

T = TypeVar("T")

#: What `receive_many` returns when there is no message.
NOTHING: Final = (None, None)


class SyncChannelLayer:
    """Channels and groups without asyncio; the arguments are those of ClusterChannelLayer.

    No Django settings are needed. Nothing is opened before the first call. Safe to share between
    threads and forks. Every call ends within CONFIG `timeout`, but those that wait for a message.
    Errors are those of ClusterChannelLayer.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = errors.ChannelFull
    MessageTooLarge = errors.MessageTooLarge

    def __init__(self, **config: Any) -> None:
        """ConfigError names what is wrong with the CONFIG."""
        self._core = _Core(**config)

    # -- errors and arguments are those of the methods of ClusterChannelLayer

    def send(
        self,
        channel: str,
        message: Message,
        *,
        confirm: bool | None = None,
        expiry: float | None = None,
    ) -> None:
        """Send a message to a channel."""
        self._core.send_here(channel, message, confirm, expiry)

    def group_send(
        self,
        group: str,
        message: Message,
        *,
        confirm: bool | None = None,
        expiry: float | None = None,
        exclude: Collection[str] = (),
    ) -> None:
        """Send a message to every member of a group; full channels miss it."""
        self._core.group_send_here(group, message, confirm, expiry, exclude)

    def send_many(
        self, messages: Iterable[tuple[str, Message]], *, expiry: float | None = None
    ) -> list[ClusterError | None]:
        """Send many messages at once; for each of them None or its error."""
        return self._core.elsewhere(self._core.send_many(messages, expiry=expiry))

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """The next message of a channel, or of all channels that begin with a name up to ``!``.

        Waits through every outage, `timeout` seconds at most. TimeoutError: none came.
        """
        _, message = self._core.receive_here([channel], block=True, timeout_s=timeout)
        if message is None:
            raise TimeoutError(f"no message on channel {channel!r} within {timeout:g} s")
        return message

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str, Message] | tuple[None, None]:
        """The next message of several channels, and the full name of its channel.

        `(None, None)`: there is none now or, with `block`, none came within `timeout` seconds. A
        channel that is always full does not keep the others waiting: each has its turn.
        """
        return self._core.receive_here(channels, block=block, timeout_s=timeout)

    def new_channel(self, prefix: str = "specific") -> str:
        """A new name of a channel that only this process receives."""
        return finish(self._core.new_channel(prefix))

    def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group, or renew its membership."""
        self._core.elsewhere(self._core.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; nothing if it is not in it."""
        self._core.elsewhere(self._core.group_discard(group, channel))

    def channel_close(self, channel: str) -> None:
        """End a channel of this process: its memberships, and what waits for it."""
        self._core.elsewhere(self._core.channel_close(channel))

    def group_channels(self, group: str, *, timeout: float | None = None) -> frozenset[str]:
        """The names of a group's members."""
        return self._core.elsewhere(self._core.group_channels(group, timeout=timeout))

    def group_count(self, group: str, *, timeout: float | None = None) -> int:
        """How many members a group has."""
        return self._core.elsewhere(self._core.group_count(group, timeout=timeout))

    def group_exists(self, group: str, *, timeout: float | None = None) -> bool:
        """Whether a group has a member."""
        return self._core.elsewhere(self._core.group_exists(group, timeout=timeout))

    def flush(self) -> None:
        """Empty all channels and groups of this prefix, in every process."""
        self._core.elsewhere(self._core.flush())

    def wait_for_confirms(self) -> None:
        """Return when it is known of all unconfirmed messages until now what became of them."""
        self._core.elsewhere(self._core.wait_for_confirms())

    def close(self) -> None:
        """Close every connection; the next call opens them anew. Memberships stay."""
        self._core.elsewhere(self._core.close())

    def locate(self, name: str) -> str:
        """Id of the shard that serves a channel or a group."""
        self._core.open_here()
        return finish(self._core.locate(name))

    def stats(self) -> dict[str, Any]:
        """What this process counted; as ClusterChannelLayer.stats."""
        return self._core.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self._core.prefix!r})"


class _Core(ClusterChannelLayer):
    """The layer itself, with what a thread needs that runs no loop."""

    def _begin(self) -> None:
        super()._begin()
        self._turns = Turns()

    def open_here(self) -> None:
        """Read the topology, if that has not been done; a fork begins anew."""
        self._checked_process_id()
        if not self._hosts.opened:
            self._hosts.open()

    def send_here(
        self, channel: str, message: Message, confirm: bool | None, expiry: float | None
    ) -> None:
        require_channel_name(channel)
        terms = USUAL if expiry is None else terms_of(expiry, (), self.expiry)
        body = encode_body(message, self.config.message_size_limit)
        if self._confirm if confirm is None else confirm:
            self._write_here(self._writing.send, channel, body, terms)
        else:
            self._queue_elsewhere(channel, body, terms, to_group=False)

    def group_send_here(
        self,
        group: str,
        message: Message,
        confirm: bool | None,
        expiry: float | None,
        exclude: Collection[str],
    ) -> None:
        require_group_name(group)
        terms = terms_of(expiry, exclude, self.expiry)
        body = encode_body(message, self.config.message_size_limit)
        if self._confirm if confirm is None else confirm:
            self._write_here(self._writing.group_send, group, body, terms)
        else:
            self._queue_elsewhere(group, body, terms, to_group=True)

    def receive_here(
        self, channels: Sequence[str], *, block: bool, timeout_s: float | None
    ) -> tuple[str, Message] | tuple[None, None]:
        if isinstance(channels, str):
            raise InvalidName(f"channels must be a list of names, not the string {channels!r}")
        if not channels:
            raise InvalidName("channels is empty: name at least one")
        for channel in channels:
            require_channel_name(channel)
            if is_process_specific(channel):
                self._require_ours(channel)
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            received = self._received(list(channels), block, deadline)
            if received is None:
                return NOTHING
            try:
                return received[0], received[1].open(self._decipher)
            except (DecryptFailed, MalformedEnvelope) as error:
                self._drop(error)

    def elsewhere(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work on the background loop, and wait for it here."""
        return background_loop().wait_for(work)

    # -- internals

    def _write_here(
        self,
        write: Callable[[Writer, str, bytes, TrailCell, Terms], Coroutine[Any, Any, None]],
        name: str,
        body: bytes,
        terms: Terms,
    ) -> None:
        self.open_here()
        past = recall(self._scope)
        cell = TrailCell(settled_here(past, SETTLING_TIMEOUTS * self.config.timeout))
        try:
            with self._hosts.seats().seat(name) as seat:
                finish(write(seat.writer, name, body, cell, terms))
        finally:
            remember(self._scope, cell.trail)

    def _queue_elsewhere(self, name: str, body: bytes, terms: Terms, *, to_group: bool) -> None:
        cell = PastCell(recall(self._scope))
        try:
            self.elsewhere(self._queue_there(name, body, cell, terms, to_group=to_group))
        finally:
            remember(self._scope, cell.past)

    async def _queue_there(
        self, name: str, body: bytes, cell: PastCell, terms: Terms, *, to_group: bool
    ) -> None:
        poster = (await self._first_sender()).poster
        queue = poster.group_send if to_group else poster.send
        queued = queue(name, body, cell.past, terms)
        if queued is not None:
            cell.past = queued
            return
        queue_in_turn = poster.group_send_in_turn if to_group else poster.send_in_turn
        await queue_in_turn(name, body, cell, terms)

    def _received(
        self, channels: Sequence[str], block: bool, deadline: float | None
    ) -> tuple[str, Parcel] | None:
        handover: Handover[tuple[Node, str, Parcel]] = Handover()
        work = self._hand_over(channels, block, handover)
        receiving = asyncio.run_coroutine_threadsafe(work, background_loop().loop)
        try:
            receiving.result(None if deadline is None else max(0.0, deadline - monotonic()))
        except TimeoutError:
            if receiving.done() and receiving.exception() is not None:
                raise  # it is not our time that is over
            receiving.cancel()
        except BaseException:
            receiving.cancel()
            received = handover.close()
            if received is not None:
                node, name, parcel = received
                node.loop.call_soon_threadsafe(node.receivers.put_back, name, parcel)
            raise
        received = handover.close()
        return None if received is None else received[1:]

    async def _hand_over(
        self, channels: Sequence[str], block: bool, handover: Handover[tuple[Node, str, Parcel]]
    ) -> None:
        """On the background loop: hand the next message over, or keep it."""
        while True:
            node = await self._node()
            try:
                found = (
                    await next_of(node.receivers, channels, self._turns)
                    if block
                    else await look_at(node.receivers, channels, self._turns, self.config.timeout)
                )
            except NodeClosed:
                self._require_open(channels[0])
                continue
            if found is not None and not handover.put((node, *found)):
                node.receivers.put_back(*found)
            return
