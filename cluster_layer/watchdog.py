"""Notices a reader that makes no progress, tells it, and makes it begin anew.

Every reader gets on at least once a second or two, also while nothing arrives: its reads have
deadlines. One that does not is stuck by a defect, of ours or of what is between us and the shard.
Looks are counted, not seconds: an event loop that is blocked looks at nothing either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from cluster_layer.reader import Reader

logger = logging.getLogger("cluster_layer")

#: Looks, one a second, without any progress; far more than the deadline of a read.
PATIENCE: Final = 15


class Watchdog:
    """Looks at the readers of a node; belongs to its loop."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        self._seen: dict[Reader[Any], tuple[int, int]] = {}  # progress, and looks since then
        self.stalled: tuple[str, ...] = ()  # who makes no progress now: "InboxReader of shard x"

    def look(self, readers: Iterable[Reader[Any]]) -> None:
        """Once a second, with all readers that there are."""
        seen: dict[Reader[Any], tuple[int, int]] = {}
        stalled = []
        for reader in readers:
            progress, looks = self._seen.get(reader, (-1, 0))
            looks = 0 if reader.idle or reader.progress != progress else looks + 1
            seen[reader] = (reader.progress, looks)
            if looks >= self._patience:
                stalled.append(str(reader))
            if looks and looks % self._patience == 0:
                logger.error("%s makes no progress for %d s: it begins anew", reader, looks)
                reader.begin_anew()
        self._seen = seen
        self.stalled = tuple(stalled)
