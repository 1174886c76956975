"""Which event loop serves a call.

A loop that lives has connections of its own. A loop that is made for one call (``async_to_sync``
in a view, ``asyncio.run`` in a script) must not: it would open and leave them behind thousands of
times. Such calls go through one background loop per operating system process; only writes under
``async_to_sync`` block instead, which is quicker than two switches of threads. A loop counts as
living when it receives, when the layer is opened on it, or when it has been calling for a while.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import AsyncToSync

T = TypeVar("T")

LIVING_S: Final = 1.0  # a loop that calls for longer than this is no loop for one call
_START_S: Final = 10.0


class BackgroundLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cluster_layer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the loop and return its result; it must not wait for anything."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(_START_S)

    def wait_for(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run work on the loop and return its result, in a thread that runs no loop.

        TimeoutError: it was not done in time; it has been cancelled.
        """
        if self._thread is threading.current_thread():
            work.close()
            raise RuntimeError("the layer's own thread can't wait for itself")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise


_forks = 0
_background: BackgroundLoop | None = None
_background_lock = threading.Lock()


def background_loop() -> BackgroundLoop:
    """The background loop of this operating system process; a fork begins without one."""
    global _background
    with _background_lock:
        if _background is None:
            _background = BackgroundLoop()
        return _background


def forks() -> int:
    """How many forks lie between the start of the program and this process."""
    return _forks


def _after_fork() -> None:
    """The lock may have been held by a thread that does not exist in the child."""
    global _background, _background_lock, _forks
    _background = None
    _background_lock = threading.Lock()
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller runs on this loop.

    asyncio.get_running_loop() asks the system for the process id, at a tenth of what a receive
    costs; asyncio's own loops know their thread. Behind a fork neither is of use: see `forks`.
    """
    return getattr(loop, "_thread_id", None) == get_ident() or loop is asyncio.get_running_loop()


def is_for_one_call(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether ``async_to_sync`` has made this loop for a call, for which a thread stands waiting.

    Whoever blocks such a loop keeps nobody waiting but that thread.
    """
    return loop in getattr(AsyncToSync, "loop_thread_executors", ())


class Ages:
    """Since when each loop has been calling."""

    def __init__(self) -> None:
        self._first_seen: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()

    def is_living(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a loop that calls now has been calling for long enough."""
        now = time.monotonic()
        return now - self._first_seen.setdefault(loop, now) > LIVING_S


class Handover(Generic[T]):
    """One result on its way from one loop's thread to another's; either side may give up.

    A future between loops would drop a result whose reader is cancelled at that moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._result: T | None = None

    def put(self, result: T) -> bool:
        """Hand the result over; False: nobody wants it any more, it is still ours."""
        with self._lock:
            if not self._closed:
                self._result = result
            return not self._closed

    def close(self) -> T | None:
        """Take what has been handed over; from now on nothing is."""
        with self._lock:
            self._closed = True
            return self._result


async def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run work on another loop and wait for it here; cancelling here cancels there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
