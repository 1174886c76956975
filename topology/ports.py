"""What the topology's reader and writer need from the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from topology.model import Topology


class TopologyStore(Protocol):
    """One place that holds the newest topology.

    All calls block, each with a bound, and may come from any thread. A store starts no thread and
    opens no connection before its first call; make it after a fork, not before.
    """

    def read(self) -> Topology | None:
        """The newest topology, None if there is none.

        TopologyInvalid if what is there is not one, StoreUnavailable if nobody can tell.
        """

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        """Replace the topology of the expected epoch; None: create the first one.

        StaleEpoch if the store holds another epoch, TopologyTooLarge before anything is written,
        TopologyInvalid if what is there is not a topology or the new epoch is not higher,
        StoreUnavailable, with ``definite`` false if the write may have been executed.
        """

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` when it is worth reading again; returns the cancel.

        A hint only: it may come without a change, one may stand for many changes, and it comes
        from a thread of the store's. ``notify`` must not block and must not raise.
        """

    def close(self) -> None:
        """End threads and connections; every later call raises StoreUnavailable. Idempotent."""
