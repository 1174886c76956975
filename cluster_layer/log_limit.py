"""Logs: each condition once, then how often it went on; never a flood.

A condition is a text and its first argument, which is the shard, the channel or whatever it is
about. All of the package's logs go through one filter; handlers and levels are the site's business.
Records have `condition` (the text without its arguments) and `repeated` for structured logging.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

WINDOW_S: Final = 60.0
MAX_CONDITIONS: Final = 1_000
#: Of one text with whatever arguments, in one window.
MAX_ALIKE: Final = 30


@dataclass(slots=True)
class _Known:
    told_at: float
    level: int
    repeated: int = 0


class FloodFilter(logging.Filter):
    """Lets the first record of a condition pass, and counts the others for WINDOW_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Known] = {}
        self._alike: dict[str, tuple[float, int]] = {}  # text -> since when, how many passed

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "repeated") or hasattr(record, "count"):
            return True  # a summary of ours
        now = self._clock()
        condition = str(record.msg)
        record.condition = condition
        with self._lock:
            key = (condition, self._about(record))
            known = self._known.get(key)
            if known is not None and now - known.told_at < WINDOW_S:
                known.repeated += 1
                return False
            if self._are_too_many(condition, now):
                key = (condition, "")  # of these many, only the number matters
                others = self._known.setdefault(key, _Known(now, record.levelno))
                others.repeated += 1
                return False
            repeated = known.repeated if known is not None else 0
            record.repeated = repeated
            self._known.pop(key, None)
            self._known[key] = _Known(now, record.levelno)
            if len(self._known) > MAX_CONDITIONS:
                self._known.pop(next(iter(self._known)))
        if repeated:
            record.msg = f"{record.msg} ({repeated} more since the last time)"
        return True

    def tell_due(self, logger: logging.Logger) -> None:
        """Say of conditions whose window is over how often they went on."""
        now = self._clock()
        with self._lock:
            over = [(k, v) for k, v in self._known.items() if now - v.told_at >= WINDOW_S]
            for key, _ in over:
                del self._known[key]
            for text in [t for t, (since, _) in self._alike.items() if now - since >= WINDOW_S]:
                del self._alike[text]
        for (condition, about), known in over:
            if known.repeated:
                extra = {"condition": condition, "repeated": known.repeated}
                text = "%d more in %d s: %s [%s]"
                arguments = (known.repeated, round(now - known.told_at), condition, about or "any")
                logger.log(known.level, text, *arguments, extra=extra)

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._known.clear()
            self._alike.clear()

    def _are_too_many(self, condition: str, now: float) -> bool:
        since, count = self._alike.get(condition, (now, 0))
        if now - since >= WINDOW_S:
            since, count = now, 0
        self._alike[condition] = (since, count + 1)
        return count >= MAX_ALIKE

    def _about(self, record: logging.LogRecord) -> str:
        arguments: Any = record.args
        return str(arguments[0])[:200] if isinstance(arguments, tuple) and arguments else ""


limit: Final = FloodFilter()
logger: Final = logging.getLogger("cluster_layer")
logger.addFilter(limit)


def tell_due() -> None:
    """To be called now and then."""
    limit.tell_due(logger)
