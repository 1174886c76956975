"""Waiting for conditions, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_INTERVAL_S = 0.01


def eventually(condition: Callable[[], T], deadline_s: float = 30.0, what: str = "") -> T:
    """The first truthy value of `condition`; fails with its last value at the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(_message(what or repr(condition), deadline_s, value))
        time.sleep(_INTERVAL_S)
    return value


@overload
async def eventually_async(
    condition: Callable[[], Awaitable[T]], deadline_s: float = ..., what: str = ...
) -> T: ...
@overload
async def eventually_async(
    condition: Callable[[], T], deadline_s: float = ..., what: str = ...
) -> T: ...
async def eventually_async(
    condition: Callable[[], object], deadline_s: float = 30.0, what: str = ""
) -> object:
    """The same without blocking the event loop; `condition` may be a coroutine function."""
    deadline = time.monotonic() + deadline_s
    while True:
        outcome = condition()
        value = await outcome if isinstance(outcome, Awaitable) else outcome
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_message(what or repr(condition), deadline_s, value))
        await asyncio.sleep(_INTERVAL_S)


def _message(what: str, deadline_s: float, value: object) -> str:
    return f"not within {deadline_s:g} s: {what} (last: {value!r})"
