"""A dedicated connection that reads, for as long as its owner lives.

Three things arrive on connections of their own, because each of them blocks: the inbox, normal
channels, and the subscription. What they have in common is here: open, read until it breaks, pause,
open again; and give up a connection whose shard has begun another life.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import ClassVar, Generic, TypeVar, cast

from cluster_layer.connection import Connection
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link
from cluster_layer.running import BACKOFF_S

logger = logging.getLogger("cluster_layer")

C = TypeVar("C", bound=Connection)


class Reader(Generic[C]):
    """Owns one connection beside the link of a shard. Subclasses say what is read."""

    connection_class: ClassVar[type[Connection]]

    def __init__(self, link: Link) -> None:
        self._link = link
        self.progress = 0  # rises whenever it has got on; a watchdog looks at it
        self.idle = False  # there is nothing to read
        self._loop = link.loop
        self._connection: C | None = None
        link.watchers.append(self._link_changed)
        name = f"cluster_layer {type(self).__name__} {link.shard}"
        self._task = self._loop.create_task(self._keep(), name=name)

    def stop(self) -> asyncio.Task[None]:
        """Read nothing more from now on; returns the task that is about to end."""
        if self._link_changed in self._link.watchers:
            self._link.watchers.remove(self._link_changed)
        self._task.cancel()
        if self._connection is not None:
            self._connection.close()
        return self._task

    def begin_anew(self) -> None:
        """Give up whatever it is stuck in."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.close("the reader made no progress")
        self._task = self._loop.create_task(self._keep(), name=self._task.get_name())

    def __str__(self) -> str:
        return f"{type(self).__name__} of shard {self._link.shard}"

    # -- for subclasses

    async def _due(self) -> None:
        """Return when there is something to read."""

    async def _read(self, connection: C, keys: Keys) -> None:
        """Read until the connection breaks. Raises ShardUnavailable or DeliveryUnknown."""
        raise NotImplementedError

    def _failed(self, error: ShardUnavailable) -> None:
        """An attempt to open and read has ended."""

    # -- internals

    async def _keep(self) -> None:
        pause_s = 0.0
        link = self._link
        while True:
            self.idle = True
            await self._due()
            self.idle = False
            self.progress += 1
            try:
                connection = await self._open()
                self._connection = connection
                pause_s = 0.0
                await self._read(connection, link.keys_of(connection.incarnation))
            except (ShardUnavailable, DeliveryUnknown) as error:  # the link logs the shard's state
                self._failed(ShardUnavailable(link.shard, error.reason))
            except Exception as error:
                # A defect of ours must not end the reading for ever.
                logger.exception("shard %s: %s failed", link.shard, type(self).__name__)
                self._failed(ShardUnavailable(link.shard, repr(error)))
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            pause_s = min(max(pause_s * 2, BACKOFF_S[0]), BACKOFF_S[1])
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _open(self) -> C:
        settings = self._link.settings
        connection = await self.connection_class.open(
            self._link.endpoint,
            self._link.shard,
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.timeout_s,
        )
        command = self._link.connection
        if command is not None and command.incarnation != connection.incarnation:
            # What is asked there would be about the life before.
            command.close("the shard has begun another life")
        return cast(C, connection)

    def _link_changed(self) -> None:
        """The link has met another incarnation: this connection talks to a dead one."""
        connection, link = self._connection, self._link
        if connection is None or link.connection is None:
            return
        if connection.incarnation != link.keys.incarnation:
            connection.close("the shard has a new incarnation")
