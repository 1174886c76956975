"""What is known of the server at the other end of a connection, however that connection waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

import hiredis

from cluster_layer.batching import Command
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import incarnation_of, parse_info


class CommandRefused(ShardUnavailable):
    """The shard answered with an error instead of executing the command."""


class NothingListens(ShardUnavailable):
    """The host refused the connection: the shard's process is gone."""


class Session(ABC):
    """One connection's idea of its shard: incarnation and clock, learnt by `identify`."""

    def __init__(self, shard: str, timeout_s: float) -> None:
        self.shard = shard
        self.timeout_s = timeout_s
        self.incarnation = ""
        self.client_id = 0
        self.lost: str | None = None  # the reason, once it is
        self.on_lost: Callable[[], None] | None = None
        self._clock_offset_ms = 0.0
        self._life = b""

    @abstractmethod
    def call(self, commands: Sequence[Command], timeout_s: float | None = None) -> Awaitable[Any]:
        """The reply of one command, or the list of replies of several.

        Replies may be `hiredis.ReplyError` values: use `execute` to have them raised.
        ShardUnavailable (never written) or DeliveryUnknown.
        """

    @abstractmethod
    def close(self, reason: str = "closed") -> None:
        """Give the connection up."""

    async def execute(self, *commands: Command, timeout_s: float | None = None) -> Any:
        """The reply of one command, or the list of replies of several.

        CommandRefused: the shard did not execute it (of several: one of them; the others did run).
        """
        reply = await self.call(commands, timeout_s)
        for answer in reply if len(commands) > 1 else (reply,):
            refusal = self.refusal(answer)
            if refusal is not None:
                raise refusal
        return reply

    def refusal(self, reply: Any) -> CommandRefused | None:
        """The error that a reply is, if it is one."""
        if isinstance(reply, hiredis.ReplyError):
            return CommandRefused(self.shard, str(reply))
        return None

    async def identify(self) -> None:
        """Read the incarnation and the shard's clock. ShardUnavailable: not a primary."""
        seconds_us, server, replication, client_id = await self.execute(
            ("TIME",), ("INFO", "server"), ("INFO", "replication"), ("CLIENT", "ID")
        )
        replication = parse_info(replication.decode())
        if replication.get("role") != "master":
            raise ShardUnavailable(self.shard, "it is a replica")
        self._compare_clocks(seconds_us)
        self.client_id = client_id
        self._life = b"master_replid:" + replication["master_replid"].encode()
        self.incarnation = incarnation_of(
            parse_info(server.decode())["run_id"], replication["master_replid"]
        )

    async def compare(self, *commands: Command) -> list[Any]:
        """The replies of these; in the same write, compare clocks and lives.

        The run id can't change while a connection lives, so `INFO server` is not asked again.
        CommandRefused, DeliveryUnknown. ShardUnavailable: not a primary any more, or another life.
        """
        seconds_us, replication, *replies = await self.execute(
            ("TIME",), ("INFO", "replication"), *commands
        )
        self._compare_clocks(seconds_us)
        if b"role:master" not in replication:
            raise ShardUnavailable(self.shard, "it is a replica")
        self.require_same_life(replication)
        return list(replies)

    def require_same_life(self, replication: bytes) -> None:
        """Compare an INFO replication with what it was.

        A server that followed another one and leads again has the other's old data, under keys of
        our incarnation, and need not have closed our connection. ShardUnavailable: it is so, and
        what a destructive read has brought along with it is none of ours.
        """
        if self._life not in replication:
            self.close("the shard has begun another life")
            raise ShardUnavailable(self.shard, "the shard has begun another life")

    def _compare_clocks(self, seconds_us: Sequence[bytes]) -> None:
        # The earliest moment at which the shard can have looked at its clock: fences err on the
        # strict side.
        shard_ms = int(seconds_us[0]) * 1000 + int(seconds_us[1]) / 1000
        self._clock_offset_ms = shard_ms - monotonic() * 1000

    def shard_time_ms(self, at: float | None = None) -> float:
        """The shard's clock now, or at a monotonic time; early by at most one round trip."""
        return (monotonic() if at is None else at) * 1000 + self._clock_offset_ms
