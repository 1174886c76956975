"""Queued commands become one write; replies find their waiters, in order.

Redis answers the commands of one connection strictly in the order in which it read them. So a
connection needs no request ids: a queue of waiters is enough. What this module adds is the line
that promise P9 rests on: a command is either *unsent* (no byte of it was handed to the socket;
it provably did not happen) or *sent* (it may have happened).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import hiredis

pack: Any = hiredis.pack_command

Command = tuple[bytes | str | int | float, ...]


class Waiter(Protocol):
    """Whoever waits for a reply; an ``asyncio.Future`` is one."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


class Expected:
    """The replies that one waiter still expects, and until when (loop time, seconds)."""

    __slots__ = ("count", "deadline", "replies", "waiter")

    def __init__(self, waiter: Waiter, count: int, deadline: float) -> None:
        self.waiter = waiter
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] | None = [] if count > 1 else None


class Batch:
    """Commands on their way to a server and the waiters of their replies."""

    __slots__ = ("_buffers", "_sent", "_unsent")

    def __init__(self) -> None:
        self._buffers: list[bytes] = []
        self._unsent: deque[Expected] = deque()
        self._sent: deque[Expected] = deque()

    def __len__(self) -> int:
        return len(self._unsent) + len(self._sent)

    @property
    def unsent(self) -> int:
        """How many calls wait to be written."""
        return len(self._unsent)

    def add(self, commands: Sequence[Command], waiter: Waiter, deadline: float) -> None:
        """Queue commands whose replies are wanted together (one: the reply; more: a list)."""
        for command in commands:
            self._buffers.append(pack(command))
        self._unsent.append(Expected(waiter, len(commands), deadline))

    def add_unanswered(self, command: Command) -> None:
        """Queue a command whose answers come as pushes (SUBSCRIBE and its kin)."""
        self._buffers.append(pack(command))

    def take(self) -> bytes:
        """Everything unsent as one buffer; from now on it counts as sent."""
        buffers = self._buffers
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        buffers.clear()
        self._sent.extend(self._unsent)
        self._unsent.clear()
        return data

    def resolve(self, reply: Any) -> None:
        """Hand the next reply to whoever waits for it. IndexError: nobody does."""
        expected = self._sent[0]
        if expected.replies is not None:
            expected.replies.append(reply)
            if len(expected.replies) < expected.count:
                return
            reply = expected.replies
        self._sent.popleft()
        if not expected.waiter.done():
            expected.waiter.set_result(reply)

    def overdue(self, now: float) -> bool:
        """Whether the oldest command has waited longer than its deadline allows."""
        oldest = self._sent or self._unsent
        return bool(oldest) and oldest[0].deadline < now

    def abandon(self) -> tuple[list[Waiter], list[Waiter]]:
        """The waiters of unsent (did not happen) and of sent (may have happened) commands."""
        unsent = [expected.waiter for expected in self._unsent]
        sent = [expected.waiter for expected in self._sent]
        self._buffers.clear()
        self._unsent.clear()
        self._sent.clear()
        return unsent, sent
