"""Files are the old or the new, and nobody else's business."""

import stat
from pathlib import Path

import pytest

from topology.atomic import read_at_most, replace_file


def test_a_file_is_replaced_whole_and_privately(tmp_path: Path) -> None:
    """The new file has mode 0600; only when asked to it keeps the mode of the old."""
    path = tmp_path / "file"
    replace_file(path, b"one", keep_access=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    replace_file(path, b"two", keep_access=True)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o644)
    replace_file(path, b"three", keep_access=False)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"three", 0o600)


def test_a_replacement_that_fails_changes_nothing(tmp_path: Path) -> None:
    """No part of the new file is left behind."""
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(path, b"data", keep_access=False)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "missing" / "file", b"data", keep_access=False)


def test_no_more_is_read_than_wanted(tmp_path: Path) -> None:
    """One byte more than the limit is enough to know that there is too much."""
    path = tmp_path / "file"
    assert read_at_most(path, 5) is None
    path.write_bytes(b"123456789")
    assert read_at_most(path, 5) == b"123456"
    assert read_at_most(path, 9) == b"123456789"
