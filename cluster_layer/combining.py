"""Messages of one step of the loop for the same inbox leave as one script call.

A script costs a shard more than the message in it, and each call costs the client a command, a
place in the queue of answers and an answer. What is combined keeps its order, and each message has
an outcome of its own. A refusal refuses all of them: none was executed, so each may go its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from cluster_layer.connection import Caller, Connection
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.writes import Append

MAX_COMBINED: Final = 64  # messages; more would keep a shard's other clients waiting


class _Call:
    """Messages for one inbox, and who waits for their answers, in the place of one waiter."""

    __slots__ = ("deadline", "envelopes", "first", "waiters")

    def __init__(self, first: Append, deadline: float) -> None:
        self.first = first
        self.deadline = deadline
        self.envelopes: list[bytes] = []
        self.waiters: list[Caller] = []

    def takes(self, write: Append) -> bool:
        """Whether this one may come behind the others."""
        first = self.first
        return (
            write.epoch == first.epoch
            and write.capacity == first.capacity
            and len(self.waiters) < MAX_COMBINED
        )

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


class Combiner:
    """Gathers messages until the connection writes; belongs to one link.

    `post(connection, write, envelopes, waiter, deadline)` puts a call into the next write.
    """

    def __init__(
        self,
        timeout_s: float,
        post: Callable[[Connection, Append, Sequence[bytes], Caller, float], None],
    ) -> None:
        self._timeout_s = timeout_s
        self._post = post
        self._calls: dict[str, _Call] = {}  # by inbox

    def add(self, connection: Connection, write: Append, waiter: Caller) -> float:
        """Let a message leave with the others; the monotonic time of its fence, or later.

        The waiter gets the reply that the message alone would have got, or ShardUnavailable or
        DeliveryUnknown.
        """
        deadline = monotonic() + self._timeout_s
        calls, inbox = self._calls, write.inbox
        call = calls.get(inbox)
        if call is None or not call.takes(write):
            if call is not None:
                self._post(connection, call.first, call.envelopes, call, call.deadline)
            elif not calls:
                connection.gather(self._post_all)
            call = calls[inbox] = _Call(write, deadline)
        call.envelopes.append(write.envelope)
        call.waiters.append(waiter)
        return deadline

    def _post_all(self, connection: Connection) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            alone = len(call.waiters) == 1
            waiter = call.waiters[0] if alone else call
            self._post(connection, call.first, call.envelopes, waiter, call.deadline)
