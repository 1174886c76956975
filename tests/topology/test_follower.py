"""The newest valid topology is kept, whatever happens to the store."""

import logging
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from threading import enumerate as threads

import pytest

from tests.support.waiting import eventually
from tests.topology.strategies import CLUSTER
from topology.codec import MAX_BYTES, decode, encode
from topology.errors import StoreUnavailable, TopologyUnavailable
from topology.follower import Condition, Follower, objection_to
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.ports import TopologyStore
from topology.stores import open_store

BASE = initial_topology(
    [Shard("a", "redis://a:6379"), Shard("b", "redis://:hunter2@b:6379")], cluster=CLUSTER
)
OTHER = initial_topology([Shard("c", "redis://c:6379")], cluster=CLUSTER)
START_S = 30.0
STRANGER = replace(OTHER, cluster="5" * 16)
NEVER_S = 3600.0


def at(epoch: int, base: Topology = BASE) -> Topology:
    return replace(base, epoch=epoch)


class Rig:
    """A topology file, a copy's path, and followers that are closed at the end."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "topology.json"
        self.copy = directory / "state" / "last-good.json"
        self.followers: list[Follower] = []

    def put(self, topology: Topology) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(encode(topology))
        fresh.replace(self.path)

    def put_copy(self, topology: Topology) -> None:
        self.copy.parent.mkdir(exist_ok=True)
        self.copy.write_bytes(encode(topology))

    def store(self) -> TopologyStore:
        return open_store(self.path.as_uri(), poll_s=0.01)

    def follower(self, store: TopologyStore | None = None, poll_s: float = NEVER_S) -> Follower:
        self.followers.append(Follower(store or self.store(), self.copy, poll_s=poll_s))
        return self.followers[-1]

    def started(self, poll_s: float = NEVER_S) -> Follower:
        follower = self.follower(poll_s=poll_s)
        follower.start(START_S)
        return follower


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    for follower in made.followers:
        follower.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_it_starts_from_the_store_and_keeps_a_private_copy(rig: Rig) -> None:
    """The copy has secrets in it: nobody else may read it."""
    rig.put(at(3))
    follower = rig.follower()
    assert follower.start(START_S) == follower.current == at(3)
    assert decode(rig.copy.read_bytes()) == at(3)
    assert stat.S_IMODE(rig.copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(rig.copy.parent.stat().st_mode) == 0o700


def replace_by_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


SPOILS: list[tuple[Condition, Callable[[Path], object]]] = [
    (Condition.MISSING, lambda path: path.unlink(missing_ok=True)),
    (Condition.INVALID, lambda path: path.write_bytes(b"garbage")),
    (Condition.INVALID, lambda path: path.write_bytes(b" " * (MAX_BYTES + 1))),
    (Condition.LOWER_EPOCH, lambda path: path.write_bytes(encode(at(4)))),
    (Condition.UNREACHABLE, replace_by_directory),
]
FOREIGN = (Condition.FOREIGN, lambda path: path.write_bytes(encode(at(99, STRANGER))))


@pytest.mark.parametrize(("condition", "spoil"), SPOILS)
def test_it_starts_from_the_copy_when_the_store_gives_none(
    rig: Rig, condition: Condition, spoil: Callable[[Path], object]
) -> None:
    """An empty, spoilt, older or unreadable store is no reason not to serve."""
    rig.put_copy(at(5))
    spoil(rig.path)
    follower = rig.started()
    assert follower.current == at(5)
    assert follower.condition is condition


@pytest.mark.parametrize(("condition", "spoil"), [*SPOILS, FOREIGN])
def test_nothing_spoils_the_topology_in_use(
    rig: Rig,
    condition: Condition,
    spoil: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last good one stays; each condition is counted, logged once, and heals."""
    rig.put(at(5))
    follower = rig.started(poll_s=0.02)
    with caplog.at_level(logging.INFO, "topology.follower"):
        spoil(rig.path)
        eventually(lambda: follower.counts[condition] >= 5)
        assert follower.current == at(5) == decode(rig.copy.read_bytes())
        if rig.path.is_dir():
            rig.path.rmdir()
        rig.put(at(6))
        eventually(lambda: follower.current == at(6))
        if spoil.__name__ != "replace_by_directory":
            # The follower says so after it has taken the new one.
            eventually(lambda: f"no longer: {condition.value}" in caplog.messages)
    said = [record.getMessage() for record in caplog.records]
    assert sum(condition.value in line and "no longer" not in line for line in said) == 1
    if spoil.__name__ != "replace_by_directory":  # may be found missing before it is put anew
        assert sum(line == f"no longer: {condition.value}" for line in said) == 1
    assert "hunter2" not in "".join(said)


def test_another_topology_of_the_same_epoch_is_refused(rig: Rig) -> None:
    """Two topologies of one epoch are somebody's mistake; the one in use stays."""
    rig.put(at(5))
    follower = rig.started(poll_s=0.02)
    rig.put(at(5, OTHER))
    eventually(lambda: follower.condition is Condition.CONFLICT)
    assert follower.current == at(5)
    assert objection_to(at(5), at(5)) is None


def test_before_it_has_started_the_store_outweighs_an_equal_copy(rig: Rig) -> None:
    """A deployment that was made anew, with the same first epoch, is not haunted by the old."""
    rig.put_copy(at(1))
    rig.put(at(1, OTHER))
    assert rig.follower().start(START_S) == at(1, OTHER)
    assert decode(rig.copy.read_bytes()) == at(1, OTHER)


def test_before_it_has_started_the_store_says_which_cluster_it_is(rig: Rig) -> None:
    """A deployment that was made anew begins with low epochs, and the copy is of the old one."""
    rig.put_copy(at(9))
    rig.put(at(1, STRANGER))
    assert rig.follower().start(START_S) == at(1, STRANGER)
    eventually(lambda: decode(rig.copy.read_bytes()) == at(1, STRANGER))


def fail(topology: Topology) -> None:
    raise RuntimeError(topology.epoch)


def test_a_change_arrives_by_the_watch_and_is_told(rig: Rig) -> None:
    """Without any poll a new topology is current before the subscribers are called."""
    rig.put(at(1))
    follower = rig.started()
    told: list[tuple[int, int]] = []
    unwanted: list[Topology] = []
    follower.subscribe(fail)
    follower.subscribe(lambda topology: told.append((topology.epoch, follower.current.epoch)))
    follower.subscribe(unwanted.append)()
    for epoch in (2, 3):
        rig.put(at(epoch))
        eventually(lambda: told and told[-1][0] == epoch)  # noqa: B023 - called at once
    assert told == [(2, 2), (3, 3)]
    assert not unwanted


class DeafStore:
    """A store whose watch never speaks."""

    def __init__(self, store: TopologyStore) -> None:
        self.read, self.write, self.close = store.read, store.write, store.close

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        del notify
        return lambda: None


def test_a_change_arrives_by_the_poll_when_the_watch_is_lost(rig: Rig) -> None:
    """Nobody depends on hints."""
    rig.put(at(1))
    follower = rig.follower(DeafStore(rig.store()), poll_s=0.02)
    follower.start(START_S)
    rig.put(at(2))
    eventually(lambda: follower.current == at(2))


class FailingStore(DeafStore):
    """A store with a bug: what it raises is no error of ours."""

    def __init__(self, store: TopologyStore) -> None:
        super().__init__(store)
        self.sound_read, self.broken = store.read, Event()
        self.read = self.read_or_fail

    def read_or_fail(self) -> Topology | None:
        if self.broken.is_set():
            raise ZeroDivisionError
        return self.sound_read()


def test_it_outlives_a_store_with_a_bug(rig: Rig) -> None:
    """An unforeseen error is one more reason to keep the last good one and to look again."""
    rig.put(at(1))
    store = FailingStore(rig.store())
    follower = rig.follower(store, poll_s=0.02)
    follower.start(START_S)
    store.broken.set()
    eventually(lambda: follower.counts[Condition.UNREACHABLE])
    rig.put(at(2))
    store.broken.clear()
    eventually(lambda: follower.current == at(2))


def test_polls_are_spread_over_time(rig: Rig) -> None:
    """A thousand processes that started together do not ask together."""
    chances = iter((0.0, 0.5, 1.0))
    follower = Follower(rig.store(), None, poll_s=30.0, jitter=lambda: next(chances))
    follower._known = BASE
    assert [follower._pause_s() for _ in range(3)] == [15.0, 30.0, 45.0]


def test_without_store_and_copy_it_says_so_in_time(rig: Rig) -> None:
    """The error names what is wrong with the one and the other."""
    began = time.monotonic()
    with pytest.raises(TopologyUnavailable, match=r"store is empty.*last-good copy .*last-good"):
        rig.follower().start(0.3)
    assert time.monotonic() - began < 5


def test_a_topology_that_comes_while_it_starts_is_taken(rig: Rig) -> None:
    """Processes may be started before the operator has made the first topology."""
    follower = rig.follower()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(follower.start, START_S)
        eventually(lambda: follower.condition is Condition.MISSING)
        rig.put(at(1))
        assert starting.result() == at(1)


def test_a_store_that_never_answers_does_not_hang_the_start(rig: Rig, silent_port: int) -> None:
    """With a copy the start succeeds at the timeout at the latest, without one it fails then."""
    url = f"zookeeper://127.0.0.1:{silent_port}/site/topology"
    rig.put_copy(at(7))
    began = time.monotonic()
    assert rig.follower(open_store(url)).start(0.5) == at(7)
    rig.copy.unlink()
    with pytest.raises(TopologyUnavailable, match="no topology within"):
        rig.follower(open_store(url)).start(0.5)
    assert time.monotonic() - began < 5


def test_a_process_that_is_behind_does_not_lower_the_copy(rig: Rig) -> None:
    """All processes of a host share one copy; the newest epoch stays in it."""
    rig.put(at(2))
    follower = rig.started()
    rig.put_copy(at(9))
    rig.put(at(3))
    eventually(lambda: follower.current == at(3))
    follower.close()
    assert decode(rig.copy.read_bytes()) == at(9)


def test_a_copy_that_cannot_be_used_is_no_obstacle(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a damaged copy nor a directory that cannot be written stops anything."""
    rig.put(at(1))
    rig.copy.parent.mkdir()
    rig.copy.write_bytes(b"{damaged")
    assert rig.started().current == at(1)
    assert decode(rig.copy.read_bytes()) == at(1)
    blocked = Follower(rig.store(), rig.path / "below-a-file" / "copy.json")
    rig.followers.append(blocked)
    assert blocked.start(START_S) == at(1)
    assert any("cannot be written" in record.getMessage() for record in caplog.records)


def test_a_topology_that_came_by_another_way_is_kept(rig: Rig) -> None:
    """It is told and copied like one of the store's, which counts again when it is ahead."""
    rig.put(at(1))
    follower = rig.started()
    told: list[int] = []
    follower.subscribe(lambda topology: told.append(topology.epoch))
    for epoch in (2, 3, 1):
        follower.offer(at(epoch))
    eventually(lambda: follower.current == at(3))
    eventually(lambda: decode(rig.copy.read_bytes()) == at(3))
    eventually(lambda: follower.condition is Condition.LOWER_EPOCH)
    rig.put(at(4))
    eventually(lambda: follower.current == at(4))
    assert told[-2:] == [3, 4]


def test_a_closed_follower_has_closed_its_store(rig: Rig) -> None:
    """What was current stays readable; thread and store have ended; closing twice is harmless."""
    rig.put(at(1))
    before = set(threads())
    store = rig.store()
    follower = rig.follower(store)
    follower.start(START_S)
    follower.close()
    follower.close()
    assert set(threads()) <= before
    assert follower.current == at(1)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.read()


PREFORK = """
import os, sys, threading
from topology.follower import Follower
from topology.stores import open_store
follower = Follower(open_store(sys.argv[1]), None)
assert threading.active_count() == 1, threading.enumerate()
child = os.fork()
epoch = follower.start(30).epoch
follower.close()
if child == 0:
    os._exit(epoch)
print("parent", epoch, "child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_it_starts_no_thread_before_a_fork(rig: Rig) -> None:
    """Made before a fork and started after it, it works in both processes."""
    rig.put(at(4))
    done = subprocess.run(
        [sys.executable, "-c", PREFORK, rig.path.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parent 4 child 4\n"
