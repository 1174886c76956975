"""What the file store keeps beside the topology: a history of JSON lines, and locks."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from topology.atomic import replace_file
from topology.errors import LockHeld, TopologyInvalid
from topology.history import KEPT_ENTRIES, Holder, decode_holder, encode_holder

#: So many more lines than are kept are let in before the oldest are cut off.
_SLACK = 50
#: Longer than somebody who only looks at a lock holds it.
_LOOK_S = 0.1


def append_line(path: Path, line: bytes) -> None:
    """Add a line; the caller sees to it that nobody else does at the same time. OSError."""
    data = b""
    with suppress(FileNotFoundError):
        data = path.read_bytes()
    lines = data.splitlines()
    if len(lines) >= KEPT_ENTRIES + _SLACK:
        kept = [*lines[-KEPT_ENTRIES + 1 :], line]
        replace_file(path, b"\n".join(kept) + b"\n", keep_access=True)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        # After half a line, which a crash has left, a new one begins.
        torn = b"\n" if data and not data.endswith(b"\n") else b""
        file.write(torn + line + b"\n")
        file.flush()
        os.fsync(descriptor)


def last_lines(path: Path, limit: int) -> list[bytes]:
    """The newest lines, oldest first; none if there is no file. OSError."""
    try:
        return path.read_bytes().splitlines()[-min(limit, KEPT_ENTRIES) :]
    except FileNotFoundError:
        return []


class FileLock:
    """An flock, which the kernel releases when its process ends, and who holds it as content.

    It is stolen by putting another file in its place.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def held(self) -> bool:
        return self._descriptor is not None and _is_at(self._path, self._descriptor)

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if _is_at(self._path, descriptor):
                self._path.unlink()
        os.close(descriptor)


def take_lock(path: Path, name: str, holder: Holder, *, steal: bool) -> FileLock:
    """LockHeld if somebody has it; OSError."""
    deadline = time.monotonic() + _LOOK_S
    while True:
        if steal:
            with suppress(FileNotFoundError):
                path.unlink()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):  # else it was released, and removed, just now
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, encode_holder(holder, secrets.token_hex(8)), 0)
                return FileLock(path, descriptor)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LockHeld(name, _content(path)) from None
            time.sleep(_LOOK_S / 10)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def holder_of(path: Path) -> Holder | None:
    """Who has the lock; None: nobody. OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _content(path)
    finally:
        os.close(descriptor)
    return None  # it is what a killed process has left


def _content(path: Path) -> Holder | None:
    """Who wrote the lock's file; None while nobody has finished writing it."""
    with suppress(OSError, TopologyInvalid):
        return decode_holder(path.read_bytes())[0]
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
