"""Messages of one step of the loop for the same inbox leave as one script call.

A script costs a shard more than the message in it, and each call costs the client a command, a
place in the queue of answers and an answer. What is combined keeps its order, and each message has
an outcome of its own. A refusal refuses all of them: none was executed, so each may go its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, TypeAlias

from cluster_layer.batching import Command
from cluster_layer.connection import Caller, Connection
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.running import Build
from cluster_layer.writes import Append

MAX_COMBINED: Final = 64  # messages; more would keep a shard's other clients waiting


class _Call:
    """Messages for one inbox, and who waits for their answers, in the place of one waiter."""

    __slots__ = ("deadline", "envelopes", "first", "waiters")

    def __init__(self, first: Append, waiter: Caller, deadline: float) -> None:
        self.first = first
        self.deadline = deadline
        self.envelopes = [first.envelope]
        self.waiters = [waiter]

    def takes(self, write: Append) -> bool:
        """Whether this one may come behind the others."""
        first = self.first
        return (
            write.epoch == first.epoch
            and write.capacity == first.capacity
            and len(self.waiters) < MAX_COMBINED
        )

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        """The keys and arguments of the script."""
        return self.first.build_with(keys, self.envelopes)

    def done(self) -> bool:
        return False

    def set_result(self, reply: Any) -> None:
        waiters = self.waiters
        if type(reply) is not list:  # a refusal
            for waiter in waiters:
                _answer(waiter, reply)
            return
        count, position, expired = reply
        before = position - count
        for number, waiter in enumerate(waiters, 1):
            if number <= count:
                _answer(waiter, [1, before + number, expired])
            else:
                depth = self.first.capacity if count else position
                _answer(waiter, [0, depth, expired])
            expired = 0  # each was lost once

    def set_exception(self, error: ShardUnavailable | DeliveryUnknown) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(type(error)(error.shard, error.reason))


def _answer(waiter: Caller, reply: Any) -> None:
    if not waiter.done():
        waiter.set_result(reply)


_Alone: TypeAlias = tuple[Append, Caller, float]  # with its deadline


class Combiner:
    """Keeps messages until the connection writes; belongs to one life of a link's connection.

    `post(write, build, waiter, deadline)` puts a call into the next write.
    """

    def __init__(
        self,
        connection: Connection,
        post: Callable[[Append, Build, Caller, float], None],
    ) -> None:
        self._timeout_s = connection.timeout_s
        self._write_soon = connection.write_soon
        self._post = post
        self._calls: dict[str, _Alone | _Call] = {}  # by inbox
        connection.post_rest = self._post_all

    def add(self, write: Append, waiter: Caller) -> float:
        """Let a message leave with the others; the monotonic time of its fence, or later.

        The waiter gets the reply that the message alone would have got, or ShardUnavailable or
        DeliveryUnknown.
        """
        deadline = monotonic() + self._timeout_s
        calls, inbox = self._calls, write.inbox
        call = calls.get(inbox)
        if call is None:
            # Nearly always it stays alone, unless the process is busy.
            calls[inbox] = write, waiter, deadline
            self._write_soon()
            return deadline
        if isinstance(call, tuple):
            call = calls[inbox] = _Call(*call)
        if not call.takes(write):
            # Before the full call is posted: that may write at once, and then asks for the rest.
            calls[inbox] = write, waiter, deadline
            self._post(call.first, call.build, call, call.deadline)
            return deadline
        call.envelopes.append(write.envelope)
        call.waiters.append(waiter)
        return deadline

    def _post_all(self) -> None:
        calls = self._calls
        if not calls:
            return
        self._calls = {}
        for call in calls.values():
            if isinstance(call, tuple):
                write, waiter, deadline = call
                self._post(write, write.build, waiter, deadline)
            else:
                self._post(call.first, call.build, call, call.deadline)
