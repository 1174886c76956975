"""The log of losses: a line for each reason, at most once a minute, with how many there were."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters

logger = logging.getLogger("cluster_layer")

TELL_EVERY_S: Final = 60.0
#: What happens to healthy sites as well: readers that are slow or gone, or wanted.
_EXPECTED: Final = frozenset({Loss.EXPIRED, Loss.ABANDONED, Loss.DROPPED})


class LossLog:
    """Belongs to whoever looks once in a while. Times in seconds of a monotonic clock."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._told: Counter[Loss] = Counter()
        self._told_at: dict[Loss, float] = {}

    def look(self, now: float) -> None:
        """Tell what has been lost since the last line about its reason, if that is long ago."""
        for reason, count in list(self._counters.lost.items()):
            more = count - self._told[reason]
            if more and now - self._told_at.get(reason, float("-inf")) >= TELL_EVERY_S:
                level = logging.INFO if reason in _EXPECTED else logging.WARNING
                extra = {"reason": reason.value, "count": more}
                logger.log(level, "lost as %s: %d messages", reason.value, more, extra=extra)
                self._told[reason] = count
                self._told_at[reason] = now
