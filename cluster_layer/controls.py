"""Controls: what processes tell each other about memberships, in envelopes of their own kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgpack

from cluster_layer.envelope import CONTROL, decode, encode
from cluster_layer.errors import MalformedEnvelope
from cluster_layer.lanes import Lane

MAX_DIGITS: Final = 19  # a counter of Redis has 64 bits


class Control(NamedTuple):
    """What another process wants: the fields of a control, and where it came from."""

    lane: Lane
    position: int
    channel: str | None  # whom it is addressed to, if it came by an inbox
    fields: Mapping[str, str]

    @property
    def op(self) -> str:
        return self.fields.get("op", "")

    @property
    def group(self) -> str:
        return self.fields.get("group", "")

    @property
    def epoch(self) -> int:
        """The epoch of the topology that its writer went by; 0 if it does not say."""
        return number(self.fields.get("epoch", ""))


class LogEntry(NamedTuple):
    """A change of a membership, as a shard's log keeps it."""

    position: int
    epoch: int
    op: str
    group: str
    channel: str


def pack(fields: Mapping[str, str]) -> bytes:
    """The body of a control."""
    body: bytes = msgpack.packb(dict(fields))
    return body


def control(op: str, group: str, channel: str, epoch: int) -> bytes:
    """The envelope of a change of a membership, by a writer that goes by this epoch."""
    fields = {"op": op, "group": group, "channel": channel, "epoch": str(epoch)}
    return encode(CONTROL, 0, None, None, pack(fields))


def fields_of(body: bytes) -> Mapping[str, str]:
    """The fields of a control; empty if it is none."""
    try:
        fields = msgpack.unpackb(body)
    except (ValueError, TypeError):
        return {}
    if not isinstance(fields, dict):
        return {}
    return {k: v for k, v in fields.items() if isinstance(k, str) and isinstance(v, str)}


class Answer(NamedTuple):
    """What a process says of a group: how many members it serves, and who if that was asked."""

    process_id: str
    members: int
    names: tuple[str, ...]

    def pack(self) -> bytes:
        data: bytes = msgpack.packb(self)
        return data


def answer_of(data: bytes) -> Answer | None:
    """An answer; None if these bytes are none of ours."""
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError):
        return None
    if type(fields) is not list or len(fields) < 3:
        return None
    process_id, count, names = fields[:3]
    if type(process_id) is not str or type(count) is not int or count < 0:
        return None
    if type(names) is not list or not all(type(name) is str for name in names):
        return None
    return Answer(process_id, count, tuple(names))


def log_entry(payload: bytes) -> LogEntry | None:
    """An entry of a shard's membership log; None if it is none of ours."""
    position, _, data = payload.partition(b":")
    try:
        envelope = decode(data)
    except MalformedEnvelope:
        return None
    if not position.isdigit() or len(position) > MAX_DIGITS or envelope.kind != CONTROL:
        return None
    fields = fields_of(envelope.body)
    epoch = number(fields.get("epoch", ""))
    names = (fields.get("op", ""), fields.get("group", ""), fields.get("channel", ""))
    return LogEntry(int(position), epoch, *names)


def number(text: str | bytes) -> int:
    """The number that these digits are; 0 if they are none, or more than a shard counts."""
    is_number = len(text) <= MAX_DIGITS and text.isdigit()
    return int(text) if is_number and text.isascii() else 0
