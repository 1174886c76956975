"""How receivers sleep, and how a thousand of them are woken at once.

A message to a group wakes every member. With a future for each, that is a callback handle and a
turn of the event loop for every one of them, in Python; so a receiver awaits a future-like object
instead (what ``asyncio.isfuture`` means by it), and all that are woken in one step of the loop go
on in a single callback. It also knows of a cancellation at once, not when the task gets its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

P = TypeVar("P")

_ASLEEP: Final = 0
_WOKEN: Final = 1
_CANCELLED: Final = 2
_AWAKE: Final = 3


class Wakeups:
    """Sleepers of one loop that have been woken and do not run yet."""

    __slots__ = ("_due", "loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken: deque[Sleeper[Any]] = deque()
        self._due = False

    def add(self, sleeper: Sleeper[Any]) -> None:
        """Let it go on in the next step of the loop."""
        self.woken.append(sleeper)
        if not self._due:
            self._due = True
            self.loop.call_soon(self._run)

    def _run(self) -> None:
        # Who is woken from now on has its turn in the next step: others have theirs in between.
        self._due = False
        woken, self.woken = self.woken, deque()
        try:
            while woken:
                sleeper = woken.popleft()
                sleeper.is_awake = True
                if sleeper.callback is not None:
                    sleeper.context.run(sleeper.callback, sleeper)
        finally:
            # A task has ended in KeyboardInterrupt or SystemExit; the others are not to blame.
            for sleeper in woken:
                self.add(sleeper)


class Sleeper(Generic[P]):
    """One receiver that sleeps at some place; `await` it once. Belongs to one loop.

    `left(place, sleeper, woken)` is called if its task is cancelled, after it had been woken or
    before.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancelled",
        "_left",
        "_place",
        "_wakeups",
        "_woken",
        "callback",
        "context",
        "is_awake",
    )

    def __init__(
        self, wakeups: Wakeups, place: P, left: Callable[[P, Sleeper[P], bool], None]
    ) -> None:
        self._wakeups = wakeups
        self._place = place
        self._left = left
        self._woken = False
        self._cancelled: asyncio.CancelledError | None = None
        self.is_awake = False
        self.callback: Callable[[Sleeper[P]], None] | None = None
        self._asyncio_future_blocking = False

    def wake(self) -> None:
        """Let the receiver go on; once."""
        self._woken = True
        self._wakeups.add(self)

    # -- what a task asks of a future

    def __await__(self) -> Generator[Sleeper[P], None, None]:
        if not self._woken:
            self._asyncio_future_blocking = True
            yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._wakeups.loop

    def add_done_callback(
        self, callback: Callable[[Sleeper[P]], None], *, context: Context
    ) -> None:
        self.callback = callback
        self.context = context

    def done(self) -> bool:
        return self._woken or self._cancelled is not None

    def result(self) -> None:
        if self._cancelled is not None:
            raise self._cancelled

    def cancel(self, msg: object = None) -> bool:
        """False: it goes on already."""
        if self.is_awake or self._cancelled is not None:
            return False
        self._cancelled = asyncio.CancelledError(*(() if msg is None else (msg,)))
        if not self._woken:
            self._wakeups.add(self)
        self._left(self._place, self, self._woken)
        return True
