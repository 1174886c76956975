"""Files that are either the old or the new, never half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp


def replace_file(path: Path, data: bytes, *, keep_access: bool) -> None:
    """Replace the file by rename, so that a crash leaves the old one or the new one.

    The new file has mode 0600, or with ``keep_access`` the mode and, where permitted, the group
    of the old one. OSError: nothing has changed.
    """
    temporary = _written_beside(path, data, keep_access)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename is visible already; this only makes it outlive a power failure.
    with suppress(OSError):
        _sync_directory(path.parent)


def read_at_most(path: Path, limit: int) -> bytes | None:
    """The file's bytes, cut after the limit and one more; None if there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None


def _written_beside(path: Path, data: bytes, keep_access: bool) -> Path:
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if keep_access and path.exists():
                _hand_on_access(path.stat(), descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _hand_on_access(old: os.stat_result, descriptor: int) -> None:
    with suppress(PermissionError):
        os.fchown(descriptor, -1, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o777)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
