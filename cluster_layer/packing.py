"""One msgpack packer per thread.

A packer's buffer can't be shared between threads, and making one for each call costs twice what it
then does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgpack


class _Packers(threading.local):
    def __init__(self) -> None:
        self.pack: Callable[[object], bytes] = msgpack.Packer().pack


_packers = _Packers()


def packed(value: object) -> bytes:
    """The value as msgpack, as `msgpack.packb` gives it; what that raises."""
    return _packers.pack(value)
