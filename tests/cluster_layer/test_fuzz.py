"""Whatever bytes a shard or a store holds: they are read, or refused by the one error for that."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster_layer import inbox, reports
from cluster_layer.controls import answer_of, control, fields_of, log_entry, number
from cluster_layer.crypto import cipher_of
from cluster_layer.envelope import CONTROL, MESSAGE, decode, decode_body, encode
from cluster_layer.errors import DecryptFailed, MalformedEnvelope
from cluster_layer.names import channel_name_of
from topology.codec import decode as decode_topology
from topology.codec import encode as encode_topology
from topology.errors import TopologyInvalid
from topology.history import decode_entry, decode_holder
from topology.model import Shard
from topology.planning import initial_topology

HUGE = b"9" * 5000  # more digits than Python turns into a number
DEEP = b"\x91" * 5000

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9) | st.binary(max_size=4), inner)
    ),
    max_leaves=12,
)
VALID = [
    encode(MESSAGE, 60_000, "p.1!x", None, b"\x80", frozenset({"orders"})),
    encode(CONTROL, 0, None, None, msgpack.packb({"op": "who", "group": "g", "token": "t"})),
    control("stored", "group", "p.1!x", 7),
    encode_topology(initial_topology([Shard("a", "redis://a")], cluster="0" * 16)),
    msgpack.packb(("process", 2, ["a", "b"])),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Something valid in which a few bytes were changed, lost, or put in between."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def packed(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


anything = st.binary(max_size=200) | values.map(packed) | mutated()
digits = st.text(string.digits, max_size=30).map(str.encode)


def quietly(read: Callable[[bytes], object], *refusals: type[Exception]) -> Callable[[bytes], None]:
    def tried(data: bytes) -> None:
        with contextlib.suppress(*refusals):
            read(data)

    return tried


def opened(data: bytes) -> None:
    cipher = cipher_of([b"key"])
    assert cipher is not None
    cipher.open(data, b"context")


READERS: dict[str, Callable[[bytes], None]] = {
    "envelope": quietly(decode, MalformedEnvelope),
    "body": quietly(decode_body, MalformedEnvelope),
    "sealed body": quietly(opened, DecryptFailed),
    "topology": quietly(decode_topology, TopologyInvalid),
    "fields of a control": quietly(fields_of),
    "answer": quietly(answer_of),
    "log": quietly(log_entry),
    "log with a position": quietly(lambda data: log_entry(b"7:" + data)),
    "epoch": quietly(number),
    "entry of an inbox": quietly(lambda data: inbox._entry(b"1-1", [b"m", data, b"p", data])),
    "stored member": quietly(channel_name_of),
    "history": quietly(decode_entry, TopologyInvalid),
    "lock": quietly(decode_holder, TopologyInvalid),
    "report": quietly(lambda data: reports._parsed(data, alive=True, age_s=0.0)),
    "fields of an entry": quietly(lambda data: inbox._entry(b"1-1", [data, data, data])),
}


@pytest.mark.parametrize("what", sorted(READERS))
def test_no_bytes_harm_a_reader(what: str) -> None:
    """Random bytes, random structures, and valid ones with a few bytes changed."""
    reader = READERS[what]

    @given(anything | digits)
    @example(HUGE)
    @example(HUGE + b":" + VALID[0])
    @example(DEEP)
    @example(b"\xc1")
    @example(b"\xff" * 50)
    @example(packed({"epoch": HUGE.decode(), "op": "leave"}))
    @example(encode(CONTROL, 0, None, None, packed({"epoch": HUGE.decode(), "op": "leave"})))
    def read(data: bytes) -> None:
        reader(data)

    read()


@given(st.text() | st.text(string.digits))
@example(HUGE.decode())
@example("²")
@example("١٢٣")
def test_no_text_harms_a_number(text: str) -> None:
    """The fields of controls are text; 0 is what says nothing."""
    assert number(text) >= 0
