"""What travels through Redis: a small outer array around an already encoded body.

``outer = [version, kind, ttl_ms, channel, marks, body]`` as msgpack, and, if there are any, the
excluded members of the group and the epoch of the marks; `docs/wire-format.md` has the bytes. The
body is one opaque binary: a fan-out to thousands of members copies it, and only receive() decodes
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

import msgpack

from cluster_layer.errors import InvalidMessage, InvalidName, MalformedEnvelope, MessageTooLarge
from cluster_layer.lanes import GROUP, INBOX
from cluster_layer.marks import MAX_DOUBTS, Doubt, Mark
from cluster_layer.names import is_process_specific, require_channel_name
from cluster_layer.packing import packed

VERSION: Final = 1
MESSAGE: Final = 0
CONTROL: Final = 1

# A writer marks the shards that it wrote to within one deadline: a handful, never hundreds.
MAX_MARKS: Final = 64
# Far above what messages have, far below where Python's stack or msgpack (511 levels) ends.
MAX_DEPTH: Final = 128
MAX_TTL_MS: Final = 2**53
MAX_EXCLUDED: Final = 1_000

Message: TypeAlias = dict[str, Any]
Marks: TypeAlias = Mapping[str, Mark]

_new: Any = tuple.__new__  # what a NamedTuple does when it is called, at half the cost

_NOBODY: frozenset[str] = frozenset()
_MIN_INT = -(2**63)
_MAX_INT = 2**63 - 1
_ATOMS = frozenset({str, bytes, float, bool, type(None)})
_BINARY = (bytes, bytearray, memoryview)


class Envelope(NamedTuple):
    """One decoded outer array; `body` is still encoded, and sealed where the layer has keys.

    `ttl_ms` is a duration. `channel` is the full name for a message to one process-specific
    channel, None in a group message and on a normal channel. `marks` say, by shard id, "deliver
    this only after what its writer wrote there". `exclude` names members of the group that must not
    get it. `epoch` is the latest one by which an inbox of the marks was chosen; 0: they name none.
    """

    kind: int
    ttl_ms: int
    channel: str | None
    marks: Marks | None
    body: bytes
    exclude: frozenset[str] = _NOBODY
    epoch: int = 0


def encode_body(message: object, limit: int) -> bytes:
    """Encode a message; InvalidMessage names the path of what is not allowed inside it.

    Tuples arrive as lists, bytearray and memoryview as bytes, subclasses of the allowed types as
    the plain type. `limit` in encoded bytes; MessageTooLarge above it.
    """
    if type(message) is not dict or not _is_exact(message, 0):
        message = _exact_message(message)
    try:
        body = packed(message)
    except UnicodeEncodeError:
        _refuse_surrogates(message, "message")
    if len(body) > limit:
        raise MessageTooLarge(len(body), limit)
    return body


def decode_body(body: bytes) -> Message:
    """Decode what encode_body() made; MalformedEnvelope for anything else."""
    try:
        message = msgpack.unpackb(body)
    except (ValueError, TypeError) as error:
        raise MalformedEnvelope(f"the body is no msgpack: {error}") from error
    # Also foreign writers must keep to the types: a consumer never meets another one.
    if type(message) is not dict or not _is_exact(message, 0):
        raise MalformedEnvelope("the body is no map of the specification's types")
    return message


def decode_again(body: bytes) -> Message:
    """Decode once more what decode_body() has accepted before."""
    message: Message = msgpack.unpackb(body)
    return message


def is_flat(message: Message) -> bool:
    """Whether nothing in it can be changed, so that a copy of the dict is a value of its own."""
    return not any(type(value) in (dict, list) for value in message.values())


def encode(
    kind: int,
    ttl_ms: int,
    channel: str | None,
    marks: Marks | None,
    body: bytes,
    exclude: frozenset[str] = _NOBODY,
    epoch: int = 0,
) -> bytes:
    """The bytes of one message; the arguments are those of Envelope and are not checked."""
    if marks:
        marks = {
            shard: mark if mark.doubts else mark[:3]  # type: ignore[misc]
            for shard, mark in marks.items()
        }
    fields: tuple[object, ...] = (VERSION, kind, ttl_ms, channel, marks, body)
    if exclude or epoch:
        fields = (*fields, sorted(exclude) or None)
    if epoch:
        fields = (*fields, epoch)
    return packed(fields)


def fingerprint(group: str, data: bytes) -> int:
    """What tells a written message from others: 63 bits of its bytes, and of its group's name.

    Empty for a process-specific channel, whose name is in the bytes.
    """
    digest = hashlib.sha256(group.encode("ascii") + b"\n" + data).digest()
    return int.from_bytes(digest[:8]) >> 1


def decode(data: bytes, known: Callable[[str], object] = lambda _channel: None) -> Envelope:
    """The message in these bytes; MalformedEnvelope, and nothing else, if it is none of ours.

    Further fields at the end, from a later writer, are ignored; another version is not understood.
    `known(channel)` is not None for names of process-specific channels that need no further look.
    """
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise MalformedEnvelope(f"no msgpack: {error}") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise MalformedEnvelope("no array that begins with a version")
    if fields[0] != VERSION:
        raise MalformedEnvelope(f"version {fields[0]}, this layer reads {VERSION}")
    if len(fields) < 6:
        raise MalformedEnvelope(f"{len(fields)} fields instead of 6")
    _, kind, ttl_ms, channel, marks, body = fields if len(fields) == 6 else fields[:6]
    if type(kind) is not int or (kind != MESSAGE and kind != CONTROL):
        raise MalformedEnvelope(f"unknown kind {kind!r:.60}")
    if type(ttl_ms) is not int or not 0 <= ttl_ms <= MAX_TTL_MS:
        raise MalformedEnvelope(f"impossible ttl_ms {ttl_ms!r:.60}")
    if type(body) is not bytes:
        raise MalformedEnvelope("the body is no binary")
    if channel is not None and (type(channel) is not str or known(channel) is None):
        _check_channel(channel)
    if marks is not None:
        marks = _checked_marks(marks)
    exclude, epoch = _checked_more(fields[6:])
    envelope: Envelope = _new(Envelope, (kind, ttl_ms, channel, marks, body, exclude, epoch))
    return envelope


def _check_channel(channel: object) -> None:
    try:
        require_channel_name(channel)
    except InvalidName as error:
        raise MalformedEnvelope(str(error)) from error
    if not is_process_specific(str(channel)):
        raise MalformedEnvelope(f"addressed to {channel!r}, no process-specific channel")


def _checked_more(fields: list[Any]) -> tuple[frozenset[str], int]:
    """The fields that most messages lack: the excluded, and the epoch of the marks."""
    if not fields:
        return _NOBODY, 0
    epoch = fields[1] if len(fields) > 1 else 0
    if not _is_natural(epoch):
        raise MalformedEnvelope(f"impossible epoch {epoch!r:.60}")
    return _checked_excluded(fields[0]), epoch


def _checked_excluded(names: object) -> frozenset[str]:
    if names is None:
        return _NOBODY
    if type(names) is not list or len(names) > MAX_EXCLUDED:
        raise MalformedEnvelope(f"the excluded are no array of at most {MAX_EXCLUDED} names")
    try:
        for name in names:
            require_channel_name(name)
    except InvalidName as error:
        raise MalformedEnvelope(str(error)) from error
    return frozenset(names)


def _checked_marks(marks: object) -> Marks:
    if type(marks) is not dict or len(marks) > MAX_MARKS:
        raise MalformedEnvelope(f"the marks are no map of at most {MAX_MARKS} shards")
    return {_checked_shard(shard): _checked_mark(mark) for shard, mark in marks.items()}


def _checked_shard(shard: object) -> str:
    if type(shard) is not str:
        raise MalformedEnvelope("a mark names no shard")
    return shard


def _checked_mark(mark: Any) -> Mark:
    if type(mark) is list and len(mark) in (3, 4) and type(mark[0]) is str:
        incarnation, inbox, group = mark[:3]
        if all(value is None or _is_natural(value) for value in (inbox, group)):
            return Mark(incarnation, inbox, group, _checked_doubts(mark[3:]))
    raise MalformedEnvelope("a mark is no incarnation with two positions")


def _checked_doubts(fields: list[Any]) -> tuple[Doubt, ...]:
    doubts = fields[0] if fields else []
    if type(doubts) is not list or len(doubts) > MAX_DOUBTS:
        raise MalformedEnvelope(f"the doubts of a mark are no array of at most {MAX_DOUBTS}")
    for doubt in doubts:
        is_pair = type(doubt) is list and len(doubt) == 2
        if not (is_pair and doubt[0] in (INBOX, GROUP) and _is_natural(doubt[1])):
            raise MalformedEnvelope("a doubt is no lane with a fingerprint")
    return tuple(Doubt(*doubt) for doubt in doubts)


def _is_natural(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INT


def _is_exact(container: Any, depth: int) -> bool:
    """Whether there are only exact types of the specification below; False may also mean "ask
    _exact()", which knows the reason.
    """
    if depth > MAX_DEPTH:
        return False
    values = container
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
        values = container.values()
    for value in values:
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is int:
            if _MIN_INT <= value <= _MAX_INT:
                continue
            return False
        if kind not in (dict, list, tuple) or not _is_exact(value, depth + 1):
            return False
    return True


def _exact_message(message: object) -> Message:
    if not isinstance(message, dict):
        raise InvalidMessage(f"a message is a dict, not {_type_name(message)}")
    exact: Message = _exact(message, "message", 0)
    return exact


def _exact(value: Any, path: str, depth: int) -> Any:
    """A copy in exact types; subclasses (SafeString, IntEnum, defaultdict ...) become plain."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _exact_int(value, path)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, _BINARY):
        return bytes(value)
    if depth > MAX_DEPTH:
        raise InvalidMessage(f"{path:.60}... is nested deeper than {MAX_DEPTH} (a cycle?)")
    if isinstance(value, dict):
        return {
            _exact_key(key, path): _exact(item, f"{path}[{key!r}]", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple) and not isinstance(value, msgpack.ExtType):
        return [_exact(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise InvalidMessage(
        f"{path}: {_type_name(value)} cannot be sent; allowed are "
        "str, bytes, int, float, bool, None, list and dict"
    )


def _exact_int(value: int, path: str) -> int:
    plain = int.__int__(value)
    if _MIN_INT <= plain <= _MAX_INT:
        return plain
    raise InvalidMessage(f"{path}: an int of {plain.bit_length()} bits; signed 64-bit is allowed")


def _exact_key(key: object, path: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise InvalidMessage(f"{path}: key {key!r:.60} is {_type_name(key)}; keys are str")


def _refuse_surrogates(value: Any, path: str) -> NoReturn:
    """Name the text that UTF-8 cannot carry; one is known to be below."""
    found = _path_of_surrogate(value, path)
    raise InvalidMessage(f"{found}: a str with lone surrogates cannot be encoded as UTF-8")


def _path_of_surrogate(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        return path if any("\ud800" <= character <= "\udfff" for character in value) else None
    if isinstance(value, dict):
        keys = (_path_of_surrogate(key, f"{path} key {key!r}") for key in value)
        items = (_path_of_surrogate(item, f"{path}[{key!r}]") for key, item in value.items())
        return next(filter(None, keys), None) or next(filter(None, items), None)
    if isinstance(value, list | tuple):
        found = (_path_of_surrogate(item, f"{path}[{i}]") for i, item in enumerate(value))
        return next(filter(None, found), None)
    return None


def _type_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
