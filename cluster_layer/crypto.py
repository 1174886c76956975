"""Encryption of message bodies with key rotation: XAES-256-GCM.

AES-GCM with random 96-bit nonces may seal only 2**32 messages with one key, which a busy site sends
in a day or two. XAES-256-GCM (https://c2sp.org/XAES-256-GCM) derives a key from the first half of
a 192-bit nonce and has no such limit. Deriving costs more than sealing, so the first half, drawn at
random, serves for a run of RUN messages; the second half is drawn for each. Far from 2**32, a run
says nothing about chance collisions. Both come from the operating system, so a fork needs no care:
two processes with the same first half still draw different second halves.

The name that a message is addressed to is bound to it as associated data: whoever can write to a
shard cannot pass a sealed message off as one for another channel or group.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from cluster_layer.errors import ConfigError, DecryptFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 24
HALF_BYTES = 12
RUN = 1024  # messages sealed with one derived key
MAX_DERIVED = 1024  # derived keys that are kept; each writer has one at a time
_FORMAT = b"\x01"
_TAG_BYTES = 16


class Cipher(Protocol):
    """Seals bodies with the first key, opens those of any key."""

    def seal(self, body: bytes, context: bytes) -> bytes:
        """The sealed body, for this context alone."""

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The body; DecryptFailed if no key made `sealed` for this context."""


def cipher_of(keys: Sequence[bytes]) -> Cipher | None:
    """The cipher for CONFIG symmetric_encryption_keys; None without keys."""
    if not keys:
        return None
    try:
        return _XaesCipher([_XaesKey(hashlib.sha256(key).digest()) for key in keys])
    except ImportError as error:
        raise ConfigError(
            "CONFIG symmetric_encryption_keys needs the package cryptography: "
            "pip install cluster-layer[encryption]"
        ) from error


def channel_context(prefix: str, channel: str) -> bytes:
    """What a message to one channel is bound to; the full name of a process-specific channel."""
    return f"{prefix}\x00channel\x00{channel}".encode()


def group_context(prefix: str, group: str) -> bytes:
    """What a message to a group is bound to."""
    return f"{prefix}\x00group\x00{group}".encode()


class _XaesCipher:
    def __init__(self, keys: Sequence[_XaesKey]) -> None:
        self._keys = keys
        self._half = b""
        self._left = 0  # of this run; threads that meet here make it a little longer

    def seal(self, body: bytes, context: bytes) -> bytes:
        if self._left <= 0:
            self._half = os.urandom(HALF_BYTES)
            self._left = RUN
        self._left -= 1
        nonce = self._half + os.urandom(HALF_BYTES)
        return _FORMAT + nonce + self._keys[0].encrypt(nonce, body, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        if sealed[:1] != _FORMAT or len(sealed) < 1 + NONCE_BYTES + _TAG_BYTES:
            raise DecryptFailed("the body is not sealed, or in a format that is not known here")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for key in self._keys:
            body = key.decrypt(nonce, ciphertext, context)
            if body is not None:
                return body
        raise DecryptFailed(f"none of {len(self._keys)} keys opens the body for this name")


class _XaesKey:
    """One 256-bit key. Names in comments are those of the XAES-256-GCM specification."""

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import ECB

        self._aead_of = lru_cache(MAX_DERIVED)(self._derive)
        self._blocks = BlockCipher(AES(key), ECB())  # noqa: S305 -- the specification's CMAC
        self._aead = AESGCM
        self._invalid = InvalidTag
        # K1: L, which is AES of the zero block, doubled in GF(2**128).
        doubled = int.from_bytes(self._blocks.encryptor().update(bytes(16)), "big") << 1
        self._mask = (doubled & (2**128 - 1)) ^ (0x87 if doubled >> 128 else 0)

    def encrypt(self, nonce: bytes, body: bytes, context: bytes) -> bytes:
        aead = self._aead_of(nonce[:HALF_BYTES])
        sealed: bytes = aead.encrypt(nonce[HALF_BYTES:], body, context)
        return sealed

    def decrypt(self, nonce: bytes, ciphertext: bytes, context: bytes) -> bytes | None:
        try:
            aead = self._aead_of(nonce[:HALF_BYTES])
            body: bytes = aead.decrypt(nonce[HALF_BYTES:], ciphertext, context)
        except self._invalid:
            return None
        return body

    def _derive(self, half: bytes) -> AESGCM:
        """Of Kx: two blocks of the counter mode KDF over CMAC, for the first half of the nonce."""
        blocks = b"".join(
            (int.from_bytes(b"\x00" + counter + b"X\x00" + half, "big") ^ self._mask).to_bytes(
                16, "big"
            )
            for counter in (b"\x01", b"\x02")
        )
        return self._aead(self._blocks.encryptor().update(blocks))
