"""Two layers at once, for a site that moves from channels_redis without a pause.

Every process receives from both layers and writes to one of them, so each message travels once.
docs/migrating.md has the steps. Not for longer than the move takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, Final

from channels.layers import BaseChannelLayer
from django.utils.module_loading import import_string

from cluster_layer.envelope import Message
from cluster_layer.errors import ConfigError
from cluster_layer.layer import ClusterChannelLayer

logger = logging.getLogger("cluster_layer")

#: Between attempts to receive from a layer that fails: the old one raises when a Redis is away.
AGAIN_S: Final = 0.2
CORE: Final = "channels_redis.core.RedisChannelLayer"
PUBSUB: Final = "channels_redis.pubsub.RedisPubSubChannelLayer"


class TwoLayers(BaseChannelLayer):
    """CONFIG: ``old`` and ``new``, the CONFIG of each, and ``write``, ``"old"`` or ``"new"``.

    ``old_backend`` is `CORE` or `PUBSUB`, or a subclass of theirs. A name that is made here is good
    on both layers. ConfigError.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]

    def __init__(
        self, old: Mapping[str, Any], new: Mapping[str, Any], write: str, old_backend: str = CORE
    ) -> None:
        if write not in ("old", "new"):
            raise ConfigError(f"CONFIG write: {write!r:.60} is not allowed; 'old' or 'new' is")
        super().__init__()
        self.new = ClusterChannelLayer(**new)
        backend = _backend_of(old_backend)
        self.old: Any = backend(**old)
        self._is_pubsub = _is_pubsub(backend)
        self._writer: Any = self.old if write == "old" else self.new
        self.write = write
        self._arrivals: dict[str, _Arrivals] = {}

    async def send(self, channel: str, message: Message) -> None:
        """Send by the layer that is written to; its errors."""
        await self._writer.send(channel, message)

    async def group_send(self, group: str, message: Message) -> None:
        """As `send`: every process receives from both."""
        await self._writer.group_send(group, message)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name that this process receives on both layers."""
        name = await self.new.new_channel(prefix)
        if self._is_pubsub:
            # As its own new_channel does: what is sent to a channel without a subscription is lost.
            await self.old._subscribe_to_channel(name)  # noqa: SLF001 - it takes no name otherwise
        else:
            # It looks at the end of the part up to "!" to know its own.
            self.old.client_prefix = name.partition("!")[0].rpartition(".")[2]
        return name

    async def receive(self, channel: str) -> Message:
        """The next message that comes by either layer.

        A cancel loses nothing of the new layer's. The old one may drop what it has just taken in;
        that of `channels_redis.pubsub` ends its subscription to the channel until the next call.
        """
        arrivals = self._arrivals.setdefault(channel, _Arrivals(channel, (self.old, self.new)))
        try:
            return await arrivals.next()
        finally:
            if arrivals.is_over:
                self._arrivals.pop(channel, None)

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to the group of both layers."""
        await _both(self.old.group_add(group, channel), self.new.group_add(group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from the group of both layers."""
        await _both(self.old.group_discard(group, channel), self.new.group_discard(group, channel))

    async def flush(self) -> None:
        """Empty both layers; of `channels_redis.pubsub` what this process has."""
        await _both(self.old.flush(), self.new.flush())
        for arrivals in list(self._arrivals.values()):
            arrivals.begin_anew()  # who receives may wait at a queue that is none any more

    async def close(self) -> None:
        """Close every connection of both."""
        # That of pub/sub has no other end: it forgets its subscriptions, which end anyway.
        ending = self.old.flush() if self._is_pubsub else self.old.close_pools()
        await _both(ending, self.new.close())


class _Arrivals:
    """What comes to one channel by two layers.

    Each layer's `receive` goes on from call to call, and is cancelled only with the caller: the old
    layer drops what it has just taken in when it is cancelled.
    """

    def __init__(self, channel: str, layers: Sequence[Any]) -> None:
        self._channel = channel
        self._layers = layers
        self._arrived: deque[Message] = deque()
        self._receiving: dict[int, asyncio.Task[Message]] = {}
        self._waiters = 0

    @property
    def is_over(self) -> bool:
        return not (self._arrived or self._receiving or self._waiters)

    async def next(self) -> Message:
        self._waiters += 1
        try:
            self._take_in()
            while not self._arrived:
                for number, layer in enumerate(self._layers):
                    if number not in self._receiving:
                        work = _receive(layer, self._channel)
                        self._receiving[number] = asyncio.ensure_future(work)
                await asyncio.wait(self._receiving.values(), return_when=asyncio.FIRST_COMPLETED)
                self._take_in()
            return self._arrived.popleft()
        except asyncio.CancelledError:
            if self._waiters == 1:
                await self._stop()
            raise
        finally:
            self._waiters -= 1

    def begin_anew(self) -> None:
        """Have each layer's `receive` called again."""
        for task in self._receiving.values():
            task.cancel()

    def _take_in(self) -> None:
        for number, task in list(self._receiving.items()):
            if task.done():
                del self._receiving[number]
                if not task.cancelled():  # else with its event loop
                    self._arrived.append(task.result())

    async def _stop(self) -> None:
        for task in self._receiving.values():
            task.cancel()
        await asyncio.gather(*self._receiving.values(), return_exceptions=True)
        self._take_in()


async def _receive(layer: Any, channel: str) -> Message:
    while True:
        try:
            message: Message = await layer.receive(channel)
            return message
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # redis-py made an error of its own of it
            logger.warning("%s: receive failed (%r)", type(layer).__name__, error)
            if _is_pubsub(type(layer)):
                # It would take a channel for subscribed whose subscription has failed.
                layer.channels.pop(channel, None)
            await asyncio.sleep(AGAIN_S)


def _backend_of(name: str) -> type[Any]:
    """The class of the old layer. ConfigError: it is none that this can work with."""
    allowed = f"{CORE!r} or {PUBSUB!r} is"
    try:
        found = import_string(name)
        known = tuple(import_string(one) for one in (CORE, PUBSUB))
    except (AttributeError, ImportError, TypeError) as error:
        raise ConfigError(
            f"CONFIG old_backend: {name!r:.100} is not allowed; {allowed}, with the package "
            f"channels_redis installed: {error}"
        ) from None
    if not (isinstance(found, type) and issubclass(found, known)):
        raise ConfigError(f"CONFIG old_backend: {name!r:.100} is not allowed; {allowed}")
    return found


def _is_pubsub(backend: type[Any]) -> bool:
    return issubclass(backend, import_string(PUBSUB))


async def _both(*works: Awaitable[Any]) -> None:
    """Do both to the end; then raise what one of them raised."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
