"""The bytes that travel through Redis."""

import enum
import json
import math
import shutil
import subprocess
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from django.utils.safestring import SafeString
from hypothesis import example, given
from hypothesis import strategies as st

from cluster_layer.envelope import (
    CONTROL,
    MESSAGE,
    Envelope,
    Marks,
    decode,
    decode_body,
    encode,
    encode_body,
    fingerprint,
)
from cluster_layer.errors import InvalidMessage, MalformedEnvelope, MessageTooLarge
from cluster_layer.lanes import GROUP, INBOX
from cluster_layer.marks import MAX_DOUBTS, Doubt, Mark
from cluster_layer.names import MAX_NAME_BYTES

VECTORS_FILE = Path(__file__).parents[1] / "vectors" / "envelope.json"
VECTORS = json.loads(VECTORS_FILE.read_text(encoding="utf-8"))
LIMIT = 1_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
atoms = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
) | (texts | st.binary(max_size=20))
values = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5)
)
messages = st.dictionaries(texts, values, max_size=5)
channels = st.from_regex(r"[A-Za-z0-9._-]{1,50}![A-Za-z0-9._-]{0,49}", fullmatch=True)
positions = st.none() | st.integers(0, 2**63 - 1)
doubts = st.lists(
    st.builds(Doubt, st.sampled_from([INBOX, GROUP]), st.integers(0, 2**63 - 1)),
    max_size=MAX_DOUBTS,
).map(tuple)
marks = st.dictionaries(texts, st.builds(Mark, texts, positions, positions, doubts), max_size=3)


class Level(enum.IntEnum):
    HIGH = 3


class Room(enum.StrEnum):
    LOBBY = "lobby"


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: dict[str, Any]) -> None:
    """Every message of the specification's types comes back equal, in the same types."""
    body = encode_body(message, LIMIT)
    assert repr(decode_body(body)) == repr(message)


def test_special_floats_arrive() -> None:
    """The whole double range is allowed, infinities and NaN are part of it."""
    arrived = decode_body(encode_body({"a": math.inf, "b": -math.inf, "c": math.nan}, LIMIT))
    assert (arrived["a"], arrived["b"]) == (math.inf, -math.inf)
    assert math.isnan(arrived["c"])


def test_related_types_arrive_as_the_plain_ones() -> None:
    """A tuple becomes a list; subclasses and other binary types become what msgpack has."""
    message = defaultdict(
        list,
        {
            SafeString("key"): (1, (2, [3])),
            "ordered": OrderedDict({SafeString("b"): 1}),
            "int": Level.HIGH,
            "str": Room.LOBBY,
            "safe": SafeString("<b>"),
            "binary": [bytearray(b"a"), memoryview(b"b")],
        },
    )
    arrived = decode_body(encode_body(message, LIMIT))
    assert arrived == {
        "key": [1, [2, [3]]],
        "ordered": {"b": 1},
        "int": 3,
        "str": "lobby",
        "safe": "<b>",
        "binary": [b"a", b"b"],
    }
    assert type(arrived["str"]) is str
    assert type(arrived["int"]) is int


def _cycle() -> dict[str, Any]:
    message: dict[str, Any] = {}
    message["self"] = [message]
    return message


def _nested(depth: int) -> dict[str, Any]:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return {"deep": value}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([], "a message is a dict, not list"),
        (None, "a message is a dict, not NoneType"),
        ({"a": [0, 1, 2, {"b": datetime.now(UTC)}]}, "message['a'][3]['b']: datetime.datetime"),
        ({"a": Decimal(1)}, "message['a']: decimal.Decimal cannot be sent"),
        ({"a": {1, 2}}, "message['a']: set cannot be sent"),
        ({"a": object}, "message['a']: type cannot be sent"),
        ({"a": 1j}, "message['a']: complex cannot be sent"),
        ({"a": msgpack.ExtType(1, b"x")}, "message['a']: msgpack.ext.ExtType cannot be sent"),
        ({"a": msgpack.Timestamp(1)}, "message['a']: msgpack.ext.Timestamp cannot be sent"),
        ({"a": (2**63,)}, "message['a'][0]: an int of 64 bits"),
        ({"a": -(2**63) - 1}, "message['a']: an int of 64 bits"),
        ({"a": 10**10_000}, "message['a']: an int of 33220 bits"),
        ({1: "a"}, "message: key 1 is int; keys are str"),
        ({"a": [{b"b": 1}]}, "message['a'][0]: key b'b' is bytes"),
        ({"a": [{("b",): 1}]}, "message['a'][0]: key ('b',) is tuple"),
        ({"a": {None: 1}}, "message['a']: key None is NoneType"),
        ({"a": ["ok", "\ud800"]}, "message['a'][1]: a str with lone surrogates"),
        ({"a": {"\udfff": 1}}, "message['a'] key '\\udfff': a str with lone surrogates"),
        (_cycle(), "is nested deeper than 128 (a cycle?)"),
        (_nested(129), "is nested deeper than 128"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_sent_is_named_with_its_path(message: object, text: str) -> None:
    """InvalidMessage, a TypeError, tells where inside the message the fault is."""
    with pytest.raises(InvalidMessage) as caught:
        encode_body(message, LIMIT)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_message_may_be_nested_128_deep() -> None:
    """The bound on depth is far above what messages have."""
    message = _nested(128)
    assert decode_body(encode_body(message, LIMIT)) == message


def test_a_message_is_too_large_from_one_byte_above_the_limit() -> None:
    """MessageTooLarge carries the size of the encoded body and the limit."""
    message = {"data": b"x" * 1000}
    size = len(encode_body(message, LIMIT))
    assert len(encode_body(message, size)) == size
    with pytest.raises(MessageTooLarge) as caught:
        encode_body(message, size - 1)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)


def test_the_body_is_a_copy() -> None:
    """Changing the message after encoding, or a decoded one, changes nothing elsewhere."""
    message = {"list": [1], "bytes": bytearray(b"a")}
    body = encode_body(message, LIMIT)
    message["list"].append(2)
    first = decode_body(body)
    first["list"].append(3)
    assert decode_body(body) == {"list": [1], "bytes": b"a"}


@given(
    st.sampled_from([MESSAGE, CONTROL]),
    st.integers(0, 2**53),
    st.none() | channels,
    st.none() | marks,
    st.binary(max_size=50),
)
def test_an_envelope_comes_back_as_it_was_written(
    kind: int, ttl_ms: int, channel: str | None, marks: Marks | None, body: bytes
) -> None:
    """Every field of the outer array survives, and the body is not touched."""
    assert decode(encode(kind, ttl_ms, channel, marks, body)) == Envelope(
        kind, ttl_ms, channel, marks, body
    )


@given(st.binary(max_size=200))
@example(b"\x96\x01\x00\x01\xc0\xc0")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x81\x90\x01")
@example(b"\xd9\x01\xff")
@example(b"\x91" * 2000)
def test_any_bytes_are_an_envelope_or_malformed(data: bytes) -> None:
    """Nothing but MalformedEnvelope ever comes out of foreign bytes, outside or inside."""
    for read in (decode, decode_body):
        try:
            read(data)
        except MalformedEnvelope:
            continue


@given(st.lists(values, max_size=8))
def test_any_array_is_an_envelope_or_malformed(fields: list[Any]) -> None:
    """The same for well-formed msgpack of the wrong shape."""
    try:
        envelope = decode(msgpack.packb([1, *fields]))
    except MalformedEnvelope:
        return
    assert isinstance(envelope.body, bytes)


def _outer(**changes: Any) -> bytes:
    fields = {"version": 1, "kind": 0, "ttl_ms": 5, "channel": None, "marks": None, "body": b"\x80"}
    return bytes(msgpack.packb(list((fields | changes).values())))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "version 2"),
        ({"version": True}, "begins with a version"),
        ({"kind": 2}, "unknown kind 2"),
        ({"kind": False}, "unknown kind"),
        ({"ttl_ms": -1}, "ttl_ms -1"),
        ({"ttl_ms": 1.5}, "ttl_ms 1.5"),
        ({"ttl_ms": 2**60}, "ttl_ms"),
        ({"channel": "normal"}, "no process-specific channel"),
        ({"channel": b"a!b"}, "must be a str"),
        ({"channel": "a!" + "b" * MAX_NAME_BYTES}, "100 are allowed"),
        ({"marks": []}, "no map"),
        ({"marks": {"a": ["x", 1]}}, "no incarnation with two positions"),
        ({"marks": {"a": [7, 1, 1]}}, "no incarnation with two positions"),
        ({"marks": {"a": ["x", -1, None]}}, "no incarnation with two positions"),
        ({"marks": {"a": ["x", None, True]}}, "no incarnation with two positions"),
        ({"marks": {b"a": ["x", 1, 1]}}, "names no shard"),
        ({"marks": {str(n): ["x", 1, 1] for n in range(65)}}, "at most 64"),
        ({"body": "text"}, "the body is no binary"),
        ({"body": None}, "the body is no binary"),
    ],
    ids=str,
)
def test_a_field_out_of_its_range_is_malformed(changes: dict[str, Any], text: str) -> None:
    """The receiver trusts nothing that it reads from a shard."""
    with pytest.raises(MalformedEnvelope, match=text):
        decode(_outer(**changes))


def test_fields_of_a_later_writer_are_ignored() -> None:
    """Fields may be added at the end without a new version."""
    fields = msgpack.unpackb(_outer())
    assert decode(msgpack.packb([*fields, None, 0, "later", {}])) == decode(_outer())


@pytest.mark.parametrize(
    "body",
    [
        msgpack.packb([1]),
        msgpack.packb({b"key": 1}),
        msgpack.packb({"a": {b"key": 1}}),
        msgpack.packb({1: 1}),
        msgpack.packb({"a": msgpack.ExtType(5, b"")}),
        msgpack.packb({"a": msgpack.Timestamp(5)}),
        msgpack.packb({"a": 2**64 - 1}),
        msgpack.packb({"a": 1}) + b"\x00",
    ],
)
def test_a_body_with_other_types_is_malformed(body: bytes) -> None:
    """A consumer only ever meets the specification's types, whoever wrote the message."""
    with pytest.raises(MalformedEnvelope):
        decode_body(body)


def mark_of(
    incarnation: str, inbox: int | None, group: int | None, doubts: Sequence[tuple[str, int]] = ()
) -> Mark:
    return Mark(incarnation, inbox, group, tuple(Doubt(*doubt) for doubt in doubts))


@pytest.mark.parametrize("vector", VECTORS["envelopes"], ids=lambda vector: vector["what"])
def test_the_golden_envelopes_are_read_and_written(vector: dict[str, Any]) -> None:
    """The bytes of version 1 never change."""
    data = bytes.fromhex(vector["hex"])
    given_marks = vector["marks"]
    marks = None if given_marks is None else {k: mark_of(*v) for k, v in given_marks.items()}
    envelope = Envelope(
        vector["kind"],
        vector["ttl_ms"],
        vector["channel"],
        marks,
        bytes.fromhex(vector["body_hex"]),
        frozenset(vector.get("exclude", ())),
        vector["epoch"],
    )
    assert decode(data) == envelope
    if vector["canonical"]:
        assert encode(*envelope) == data


@pytest.mark.parametrize("vector", VECTORS["fingerprints"], ids=lambda vector: vector["what"])
def test_the_golden_fingerprints_are_computed(vector: dict[str, Any]) -> None:
    """Writer and reader, in whatever language, call a message the same."""
    assert fingerprint(vector["group"], bytes.fromhex(vector["hex"])) == vector["fingerprint"]


@pytest.mark.parametrize("vector", VECTORS["bodies"], ids=lambda vector: vector["what"])
def test_the_golden_bodies_are_read_and_written(vector: dict[str, Any]) -> None:
    """JSON cannot show bytes: there they stand as {"$hex": ...}."""

    def restored(value: dict[str, Any]) -> Any:
        return bytes.fromhex(value["$hex"]) if set(value) == {"$hex"} else value

    message = json.loads(json.dumps(vector["message"]), object_hook=restored)
    assert decode_body(bytes.fromhex(vector["hex"])) == message
    assert encode_body(message, LIMIT).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["what"])
def test_the_golden_malformed_envelopes_are_dropped(vector: dict[str, Any]) -> None:
    """Another implementation must drop these too."""
    with pytest.raises(MalformedEnvelope):
        decode(bytes.fromhex(vector["hex"]))


def test_another_language_reads_the_golden_vectors() -> None:
    """A Perl program that knows only docs/wire-format.md agrees on every envelope and body."""
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MJSON::PP", "-e1"], check=False).returncode:
        pytest.skip("no perl with JSON::PP here")
    program = Path(__file__).with_name("envelope.pl")
    done = subprocess.run(
        [perl, str(program), str(VECTORS_FILE)], capture_output=True, text=True, check=False
    )
    parts = ("envelopes", "fingerprints", "bodies", "malformed")
    count = sum(len(VECTORS[part]) for part in parts)
    assert (done.returncode, done.stdout) == (0, f"{count}\n"), done.stderr


def test_what_was_refused_leaves_nothing_behind() -> None:
    """In the buffer of the packer, which serves the thread's next message as well."""
    with pytest.raises(InvalidMessage):
        encode_body({"text": "kept?", "bad": "\ud800"}, 1000)
    assert decode_body(encode_body({"type": "t"}, 1000)) == {"type": "t"}
