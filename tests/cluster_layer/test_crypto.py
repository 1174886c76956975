"""Encryption of bodies, key rotation and what a sealed body is bound to."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_layer.crypto import (
    HALF_BYTES,
    NONCE_BYTES,
    RUN,
    Cipher,
    _XaesKey,
    channel_context,
    cipher_of,
    group_context,
)
from cluster_layer.errors import ConfigError, DecryptFailed

VECTORS = json.loads(Path(__file__).parents[1].joinpath("vectors/envelope.json").read_text())
CONTEXT = channel_context("asgi", "orders")


def cipher(*keys: bytes) -> Cipher:
    made = cipher_of(keys)
    assert made is not None
    return made


def test_without_keys_there_is_no_cipher() -> None:
    """Encryption is opt-in."""
    assert cipher_of(()) is None


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_what_was_sealed_opens(body: bytes, context: bytes) -> None:
    """The same keys and context give the body back, and it does not show in the sealed form."""
    both = cipher(b"key")
    sealed = both.seal(body, context)
    assert both.open(sealed, context) == body
    assert len(body) < 8 or body not in sealed


def test_keys_rotate_without_downtime() -> None:
    """The first key seals, every key opens: put the new one in front, drop the old one later."""
    old, rotating, new = cipher(b"old"), cipher(b"new", b"old"), cipher(b"new")
    assert rotating.open(old.seal(b"body", CONTEXT), CONTEXT) == b"body"
    assert new.open(rotating.seal(b"body", CONTEXT), CONTEXT) == b"body"
    with pytest.raises(DecryptFailed, match="none of 1 keys"):
        new.open(old.seal(b"body", CONTEXT), CONTEXT)


@pytest.mark.parametrize(
    "other",
    [
        channel_context("asgi", "invoices"),
        channel_context("other", "orders"),
        group_context("asgi", "orders"),
    ],
)
def test_a_sealed_body_is_bound_to_its_name(other: bytes) -> None:
    """Moved to another channel, prefix or kind of name, it does not open."""
    both = cipher(b"key")
    with pytest.raises(DecryptFailed):
        both.open(both.seal(b"body", CONTEXT), other)


def test_any_changed_byte_is_noticed() -> None:
    """Authenticated encryption: format, nonce, ciphertext and tag."""
    both = cipher(b"key")
    sealed = both.seal(b"body", CONTEXT)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(DecryptFailed):
            both.open(bytes(changed), CONTEXT)
        with pytest.raises(DecryptFailed):
            both.open(sealed[:position], CONTEXT)


@given(st.binary(max_size=100))
def test_foreign_bytes_do_not_open(sealed: bytes) -> None:
    """Also a body that was sent before encryption was turned on."""
    with pytest.raises(DecryptFailed):
        cipher(b"key").open(sealed, CONTEXT)


@pytest.mark.parametrize(
    ("key", "context", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (
            b"\x03" * 32,
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ],
)
def test_the_cipher_is_xaes_256_gcm(key: bytes, context: bytes, expected: str) -> None:
    """The two test vectors of its specification, one for each value of the top bit of L."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    sealed = _XaesKey(key).encrypt(nonce, b"XAES-256-GCM", context)
    assert sealed.hex() == expected


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda vector: vector["what"])
def test_the_golden_sealed_bodies_open(vector: dict[str, Any]) -> None:
    """The sealed form never changes, and the context is made of prefix and name."""
    if "channel" in vector:
        context = channel_context(vector["prefix"], vector["channel"])
    else:
        context = group_context(vector["prefix"], vector["group"])
    assert context.hex() == vector["context_hex"]
    opened = cipher(vector["key"].encode()).open(bytes.fromhex(vector["sealed_hex"]), context)
    assert opened.hex() == vector["body_hex"]


def test_a_missing_package_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys without the package cryptography are an error at construction."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(ConfigError, match=r"pip install cluster-layer\[encryption\]"):
        cipher_of([b"key"])


def test_no_nonce_is_used_twice_and_no_run_is_long() -> None:
    """The first half serves for a bounded run, the second half is new for each message."""
    sealer = cipher(b"key")
    nonces = [sealer.seal(b"x", b"")[1 : 1 + NONCE_BYTES] for _ in range(3 * RUN)]
    assert len(set(nonces)) == len(nonces)
    halves = Counter(nonce[:HALF_BYTES] for nonce in nonces)
    assert set(halves.values()) == {RUN}
    assert len({nonce[HALF_BYTES:] for nonce in nonces}) == len(nonces)
    assert cipher(b"key").open(sealer.seal(b"body", b"name"), b"name") == b"body"
