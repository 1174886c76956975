"""Names to slots, and the golden vectors that other languages read."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.codec import decode, encode
from topology.hashing import SLOTS, slot_of

VECTORS = Path(__file__).parents[1] / "vectors" / "slots.json"
TOPOLOGIES = VECTORS.with_name("topologies.json")
OTHER_LANGUAGE = Path(__file__).parent / "slots.pl"

names = st.text("abcXYZ0189-_.é字", max_size=100)


def murmur3_x86_32(data: bytes) -> int:
    """MurmurHash3 x86_32 with seed 0, told from its published description; unsigned."""
    state = 0
    blocks, tail = divmod(len(data), 4)
    for start in range(0, 4 * blocks, 4):
        state ^= _scrambled(int.from_bytes(data[start : start + 4], "little"))
        state = _rotated(state, 13) * 5 + 0xE6546B64 & 0xFFFFFFFF
    if tail:
        state ^= _scrambled(int.from_bytes(data[4 * blocks :], "little"))
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = (state ^ state >> shift) * factor & 0xFFFFFFFF
    return state


def _scrambled(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & 0xFFFFFFFF


@given(names)
def test_the_slot_is_the_unsigned_murmur3_hash_modulo_4096(name: str) -> None:
    """Names without "!" hash whole, as UTF-8."""
    assert slot_of(name) == murmur3_x86_32(name.encode()) % SLOTS


@given(names, names)
def test_a_process_specific_channel_hashes_up_to_its_mark(process: str, local: str) -> None:
    """All channels of one process have the slot of the part up to and including "!"."""
    assert slot_of(f"{process}!{local}") == murmur3_x86_32(f"{process}!".encode()) % SLOTS
    assert slot_of(f"{process}!{local}!{local}") == slot_of(f"{process}!")


def test_golden_vectors_hold() -> None:
    """The published hashes, slots and owners never change."""
    golden = json.loads(VECTORS.read_text(encoding="utf-8"))
    topology = decode(json.dumps(golden["topology"]).encode())
    assert len(golden["names"]) > 20
    for entry in golden["names"]:
        name = entry["name"]
        assert murmur3_x86_32(entry["hashed"].encode()) == entry["hash"]
        assert slot_of(name) == entry["slot"]
        assert topology.shard_of(name).id == entry["shard"]


def test_golden_vectors_of_moving_slots_hold() -> None:
    """Wide tables, other homes and lost shards are read as published, and written so."""
    vectors = json.loads(TOPOLOGIES.read_text(encoding="utf-8"))["topologies"]
    assert {vector["topology"]["phase"] for vector in vectors} == {"prepared", "committed"}
    for vector in vectors:
        topology = decode(json.dumps(vector["topology"]).encode())
        assert json.loads(encode(topology)) == vector["topology"]
        for place in vector["places"]:
            other = topology.other_home(slot_of(place["name"]))
            assert topology.shard_of(place["name"]).id == place["shard"]
            assert (other.id if other else None) == place["other"]


def test_another_language_finds_the_same_homes() -> None:
    """The vectors and the topology's bytes are enough to route from a program in Perl."""
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MJSON::PP", "-e1"], check=False).returncode:
        pytest.skip("no perl with JSON::PP here")
    done = subprocess.run(
        [perl, str(OTHER_LANGUAGE), str(VECTORS), str(TOPOLOGIES)],
        capture_output=True,
        text=True,
        check=False,
    )
    count = len(json.loads(VECTORS.read_text(encoding="utf-8"))["names"])
    moving = json.loads(TOPOLOGIES.read_text(encoding="utf-8"))["topologies"]
    count += sum(len(vector["places"]) for vector in moving)
    assert (done.returncode, done.stdout) == (0, f"{count} names agree\n"), done.stderr
