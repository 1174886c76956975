"""Histories and locks where stores differ: processes that die, files that are half written."""

import json
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from tests.support.zookeeper import ZooKeeperServer
from tests.topology.strategies import OPERATOR
from topology.errors import LockHeld, TopologyInvalid
from topology.history import Entry, Holder, Kind, decode_entry, decode_holder, encode_entry
from topology.ports import OperatorStore

ROOT = Path(__file__).parents[3]
ENTRY = Entry(1.0, Kind.PAUSED, OPERATOR, 2, "lunch")
HOLDER = Holder(OPERATOR, 1.0)

HOLDING = """
import sys, time
from topology.history import Holder
from topology.model import Operator
from topology.stores import open_store
options = {"session_timeout_s": 1} if sys.argv[1].startswith("zookeeper") else {}
store = open_store(sys.argv[1], **options)
store.lock("operator", Holder(Operator("eve", "elsewhere", 7), 5.0))
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def somebody_holding(url: str) -> Any:
    command = [sys.executable, "-c", HOLDING, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_killed_process_leaves_no_lock_in_a_file(
    tmp_path: Path, opened: Callable[..., OperatorStore]
) -> None:
    """The kernel gives it back at once; what is left of it is not taken for a lock."""
    url = (tmp_path / "topology.json").as_uri()
    store = opened(url)
    with somebody_holding(url) as process:
        with pytest.raises(LockHeld, match="eve@elsewhere, pid 7 holds the lock 'operator'"):
            store.lock("operator", HOLDER)
        process.kill()
        process.wait()
        assert store.holder("operator") is None
        assert store.lock("operator", HOLDER).held()


def test_a_killed_process_leaves_no_lock_in_zookeeper(
    zookeeper: ZooKeeperServer, opened: Callable[..., OperatorStore]
) -> None:
    """It goes with the session."""
    url = f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}"
    store = opened(url)
    with somebody_holding(url) as process:
        with pytest.raises(LockHeld, match="eve@elsewhere"):
            store.lock("operator", HOLDER)
        process.kill()
        began = time.monotonic()
        eventually(lambda: store.holder("operator") is None)
        print(f"free after {time.monotonic() - began:.1f} s; sessions last 1 s")
        assert store.lock("operator", HOLDER).held()


def test_a_lock_is_lost_with_the_session(
    zookeeper: ZooKeeperServer, opened: Callable[..., OperatorStore]
) -> None:
    """Whoever was cut off for too long sees that it is not his any more."""
    path = uuid.uuid4().hex
    other = opened(f"zookeeper://{zookeeper.hosts}/{path}")
    with TcpProxy("127.0.0.1", zookeeper.port) as proxy:
        store = opened(f"zookeeper://127.0.0.1:{proxy.port}/{path}", session_timeout_s=1)
        lock = store.lock("monitor", HOLDER)
        assert lock.held()
        proxy.blackhole("both")
        eventually(lambda: other.holder("monitor") is None)
        proxy.heal()
        assert not lock.held()
        taken = other.lock("monitor", HOLDER)
        lock.release()
        assert taken.held()


def test_a_history_file_is_private_and_outlives_a_crash(
    tmp_path: Path, opened: Callable[..., OperatorStore]
) -> None:
    """Entries may hold passwords; half a line, or a foreign one, costs nothing but itself."""
    store = opened((tmp_path / "topology.json").as_uri())
    path = tmp_path / "topology.json.history"
    store.append_history(ENTRY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("ab") as file:
        file.write(b"not ours\n" + encode_entry(ENTRY)[:40])
    store.append_history(ENTRY)
    assert list(store.history()) == [ENTRY, ENTRY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "the history entry has version 2"),
        ({"kind": "magic"}, "'kind' is 'magic'"),
        ({"at": None}, "the time of an entry is None"),
        ({"at": -1}, "the time of an entry is -1"),
        ({"epoch": 0}, "epoch of an entry"),
        ({"summary": 7}, "'summary' must be str"),
        ({"change": "x"}, "change of an entry"),
        ({"evidence": []}, "'evidence' must be dict"),
        ({"operator": None}, "operator of the entry must be an object"),
        ({"before": 7}, "before must be an object"),
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, object], reason: str) -> None:
    """The error names the field."""
    data = json.dumps(json.loads(encode_entry(ENTRY)) | change).encode()
    with pytest.raises(TopologyInvalid, match=reason):
        decode_entry(data)


def test_evidence_is_json() -> None:
    """What could not be read again is refused when it is written."""
    with pytest.raises(TopologyInvalid, match="no JSON"):
        encode_entry(Entry(1.0, Kind.PAUSED, OPERATOR, 2, "", evidence={"set": {1}}))
    with pytest.raises(TopologyInvalid, match="no JSON"):
        encode_entry(Entry(1.0, Kind.PAUSED, OPERATOR, 2, "", evidence={"n": float("nan")}))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"user":"a","host":"b","pid":1,"since":"x"}'])
def test_what_is_no_holder_is_refused(data: bytes) -> None:
    """Garbage in a lock's place tells nothing about its holder."""
    with pytest.raises(TopologyInvalid):
        decode_holder(data)
