"""What only the file store must mind: modes, locks, crashes."""

import fcntl
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.topology.strategies import CLUSTER
from topology.codec import decode
from topology.errors import StaleEpoch, StoreUnavailable
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store

FIRST = initial_topology(
    [Shard("a", "redis://a:6379"), Shard("b", "redis://:secret@b:6379")], cluster=CLUSTER
)
ROOT = Path(__file__).parents[3]


def test_the_file_is_private_unless_its_owner_opens_it(tmp_path: Path) -> None:
    """URLs hold passwords; a mode that the operator has set is kept through replacements."""
    path = tmp_path / "topology.json"
    store = open_store(path.as_uri())
    store.write(FIRST, expected_epoch=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    store.write(replace(FIRST, epoch=2), expected_epoch=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "topology.json",
        "topology.json.lock",
    ]


def test_a_held_lock_gives_a_definite_error_in_time(tmp_path: Path) -> None:
    """A writer that hangs elsewhere does not hang us."""
    path = tmp_path / "topology.json"
    store = open_store(path.as_uri(), timeout_s=0.2)
    with (tmp_path / "topology.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match=r"held the lock for 0\.2 s") as caught:
            store.write(FIRST, expected_epoch=None)
    assert caught.value.definite
    store.write(FIRST, expected_epoch=None)


@pytest.mark.parametrize("below", ["missing/topology.json", "a-file/topology.json"])
def test_a_directory_that_is_not_there_is_named(tmp_path: Path, below: str) -> None:
    """The error says which file could not be written, and why."""
    (tmp_path / "a-file").touch()
    store = open_store((tmp_path / below).as_uri())
    with pytest.raises(StoreUnavailable, match=f"cannot write the topology file .*{below}"):
        store.write(FIRST, expected_epoch=None)


WRITER = """
import sys
from dataclasses import replace
from topology.errors import StaleEpoch
from topology.stores import open_store
store = open_store(sys.argv[1])
won = 0
while won < 25:
    found = store.read()
    try:
        store.write(replace(found, epoch=found.epoch + 1), expected_epoch=found.epoch)
        won += 1
    except StaleEpoch:
        pass
"""


def test_processes_lose_no_update_of_each_other(tmp_path: Path) -> None:
    """Three processes that each raise the epoch 25 times end at 76."""
    url = (tmp_path / "topology.json").as_uri()
    store = open_store(url)
    store.write(FIRST, expected_epoch=None)
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) for _ in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = store.read()
    assert found is not None
    assert found.epoch == 1 + 3 * 25


KILLED = """
import os, sys
from dataclasses import replace
from topology.stores import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
while True:
    found = store.read()
    store.write(replace(found, epoch=found.epoch + 1), expected_epoch=found.epoch)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(tmp_path: Path) -> None:
    """Whenever it dies, the file is the old or the new one, and the next writer goes on."""
    path = tmp_path / "topology.json"
    store = open_store(path.as_uri())
    store.write(FIRST, expected_epoch=None)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, path.as_uri()],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            before = decode(path.read_bytes()).epoch
            while decode(path.read_bytes()).epoch < before + 3:
                assert writer.poll() is None
            writer.kill()
        found = store.read()
        assert found is not None
        store.write(replace(found, epoch=found.epoch + 1), expected_epoch=found.epoch)
    with pytest.raises(StaleEpoch):
        store.write(FIRST, expected_epoch=None)
