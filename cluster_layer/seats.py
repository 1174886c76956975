"""What threads without an event loop write with.

A *seat* belongs to one thread at a time: a writer, and one connection per shard. A thread takes one
for a call, so many threads open no more connections than calls run at the same moment, and never
more than MAX_SEATS to one shard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cluster_layer.blocking import BlockingLinks, Outage
from cluster_layer.counters import Counters
from cluster_layer.errors import ShardUnavailable
from cluster_layer.names import inbox_name
from cluster_layer.running import LinkSettings
from cluster_layer.topologies import Topologies
from cluster_layer.writer import Writer

MAX_SEATS: Final = 32  # calls at the same moment; the next one waits for its turn


@dataclass(frozen=True, slots=True)
class Seat:
    """What one thread at a time writes with."""

    links: BlockingLinks
    writer: Writer


class Seats:
    """The seats of a process, made as they are needed; thread-safe."""

    def __init__(
        self,
        topologies: Topologies,
        settings: LinkSettings,
        counters: Counters,
        writer_over: Callable[[BlockingLinks], Writer],
    ) -> None:
        outages: dict[str, Outage] = {}

        def make() -> Seat:
            links = BlockingLinks(topologies, settings, counters, outages)
            return Seat(links, writer_over(links))

        self._make = make
        self._topologies = topologies
        self._timeout_s = settings.timeout_s
        self._all: list[Seat] = []
        self._free: list[Seat] = []
        self._closed = False
        # A signal's handler may send while its thread is in here.
        self._freed = threading.Condition(threading.RLock())

    @contextmanager
    def seat(self, name: str) -> Generator[Seat, None, None]:
        """A seat to write to this channel or group. ShardUnavailable: none got free in time."""
        seat = self._take(name)
        try:
            yield seat
        finally:
            self._give_back(seat)

    def connected(self) -> set[str]:
        """Ids of the shards to which any seat has a connection."""
        with self._freed:
            for seat in self._free:  # whoever uses one of the others finds out by itself
                seat.links.notice_ends()
            return {shard for seat in self._all for shard in seat.links.connected()}

    def close(self) -> None:
        """Disconnect; a seat that is in use disconnects when it is given back."""
        with self._freed:
            self._closed = True
            free, self._free = self._free, []
        for seat in free:
            seat.links.close()

    def _take(self, name: str) -> Seat:
        with self._freed:
            if not self._free and len(self._all) >= MAX_SEATS:
                self._freed.wait_for(lambda: self._free, self._timeout_s)
                if not self._free:
                    shard = self._topologies.routes.shard_of(inbox_name(name))
                    raise ShardUnavailable(shard, f"{MAX_SEATS} other calls are under way")
            if self._free:
                return self._free.pop()  # the one used last: few connections, all of them warm
            seat = self._make()
            self._all.append(seat)
            return seat

    def _give_back(self, seat: Seat) -> None:
        with self._freed:
            if not self._closed:
                self._free.append(seat)
                self._freed.notify()
                return
        seat.links.close()
