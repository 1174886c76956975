"""What is written to a shard: for each verb its script, keys, arguments, and what an answer means.

Nothing here waits or opens anything; `writer.py` and `unconfirmed.py` carry it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters
from cluster_layer.envelope import fingerprint
from cluster_layer.errors import ChannelFull
from cluster_layer.keys import Keys
from cluster_layer.lanes import Lane
from cluster_layer.names import channel_name_of
from cluster_layer.scripts import Script
from cluster_layer.terms import USUAL, Terms


class Write(Protocol):
    """One write, ready to be carried out on the home of its name."""

    script: ClassVar[Script]

    @property
    def name(self) -> str:
        """Of the channel or the group."""

    @property
    def body(self) -> bytes:
        """The message, not sealed: for whoever has to write it again elsewhere."""

    @property
    def terms(self) -> Terms:
        """What its caller wanted of this message alone."""

    @property
    def shard(self) -> str: ...

    @property
    def epoch(self) -> int:
        """Of the routes by which the shard was chosen."""

    @property
    def lane(self) -> Lane | None:
        """None: what is written there has no order with what is written elsewhere."""

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        """The keys and arguments of its script, without those of fence.lua."""

    def fingerprint(self) -> int:
        """By which a reader finds it, if its position is unknown."""

    def accepted(self, reply: Any, counters: Counters) -> int | None:
        """Its position on the lane, by the script's reply. ChannelFull: it was not written."""


class Append:
    """A message, or a control, for a process-specific channel."""

    __slots__ = (
        "_expiry_ms", "body", "capacity", "envelope", "epoch", "inbox", "lane", "name", "shard",
        "terms",
    )  # fmt: skip
    script: ClassVar[Script] = scripts.INBOX_APPEND

    def __init__(
        self,
        channel: str,
        inbox: str,
        lane: Lane,
        epoch: int,
        capacity: int,
        expiry_ms: int,
        envelope: bytes,
        body: bytes,
        terms: Terms = USUAL,
    ) -> None:
        self.name = channel
        self.inbox = inbox
        self.body = body
        self.terms = terms
        self.lane = lane
        self.shard = lane.shard
        self.epoch = epoch
        self.capacity = capacity
        self._expiry_ms = expiry_ms
        self.envelope = envelope

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        named = (keys.inbox(self.inbox), keys.entries)
        return named, (self.capacity, self._expiry_ms, self.envelope)

    def build_with(self, keys: Keys, envelopes: Iterable[bytes]) -> tuple[Sequence[bytes], Command]:
        """The same for several messages to this inbox."""
        named = (keys.inbox(self.inbox), keys.entries)
        return named, (self.capacity, self._expiry_ms, *envelopes)

    def fingerprint(self) -> int:
        return fingerprint("", self.envelope)

    def accepted(self, reply: Any, counters: Counters) -> int | None:
        _check_room(self.name, self.shard, self.capacity, reply, counters)
        return int(reply[1])


class Push:
    """A message for a normal channel."""

    __slots__ = (
        "_capacity", "_envelope", "_expiry_ms", "body", "epoch", "lane", "name", "shard", "terms",
    )  # fmt: skip
    script: ClassVar[Script] = scripts.QUEUE_PUSH

    def __init__(
        self,
        channel: str,
        shard: str,
        epoch: int,
        capacity: int,
        expiry_ms: int,
        envelope: bytes,
        body: bytes,
        terms: Terms = USUAL,
    ) -> None:
        self.name = channel
        self.body = body
        self.terms = terms
        self.lane = None
        self.shard = shard
        self.epoch = epoch
        self._capacity = capacity
        self._expiry_ms = expiry_ms
        self._envelope = envelope

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue(self.name),), (self._capacity, self._expiry_ms, self._envelope)

    def fingerprint(self) -> int:
        return fingerprint("", self._envelope)

    def accepted(self, reply: Any, counters: Counters) -> int | None:
        _check_room(self.name, self.shard, self._capacity, reply, counters)
        return None


class Publish:
    """A message for a group."""

    __slots__ = ("_envelope", "body", "epoch", "lane", "members", "name", "shard", "terms")
    script: ClassVar[Script] = scripts.GROUP_SEND

    def __init__(
        self,
        group: str,
        lane: Lane,
        epoch: int,
        envelope: bytes,
        body: bytes,
        terms: Terms = USUAL,
    ) -> None:
        self.name = group
        self.body = body
        self.terms = terms
        self.lane = lane
        self.shard = lane.shard
        self.epoch = epoch
        self.members: list[str] = []  # once accepted: who has to be sent to one by one
        self._envelope = envelope

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.members(self.name), keys.seq), (keys.group(self.name), self._envelope)

    def fingerprint(self) -> int:
        return fingerprint(self.name, self._envelope)

    def accepted(self, reply: Any, counters: Counters) -> int | None:
        counters.shards[self.shard].published += 1
        if len(reply) > 1:
            names = [channel_name_of(name) for name in reply[1:]]
            if None in names:
                counters.lose(Loss.MALFORMED, names.count(None))
            exclude = self.terms.exclude
            self.members = [name for name in names if name is not None and name not in exclude]
        return int(reply[0])


def _check_room(channel: str, shard: str, capacity: int, reply: Any, counters: Counters) -> None:
    has_room, depth, expired = reply
    if expired:
        counters.lose(Loss.EXPIRED, expired)
    if not has_room:
        raise ChannelFull(channel, depth, capacity)
    counters.shards[shard].sent += 1
