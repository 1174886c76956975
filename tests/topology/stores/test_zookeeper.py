"""The ZooKeeper store with real servers: outages, access, what the client must not do."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event, Timer
from threading import enumerate as threads

import pytest
from kazoo.client import KazooClient
from kazoo.security import READ_ACL_UNSAFE

from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from tests.support.zookeeper import ZooKeeperServer
from tests.topology.strategies import CLUSTER
from topology.errors import StaleEpoch, StoreUnavailable, TopologyError
from topology.follower import Follower
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.ports import TopologyStore
from topology.stores import open_store

FIRST = initial_topology(
    [Shard("a", "redis://a:6379"), Shard("b", "redis://b:6379")], cluster=CLUSTER
)
START_S = 30.0
NEVER_S = 3600.0
BACK_S = 3.0
SESSION_S = 1.0


def at(epoch: int) -> Topology:
    return replace(FIRST, epoch=epoch)


@pytest.fixture
def own_server() -> Iterator[ZooKeeperServer]:
    """A server that the test may stop, kill, pause or rob of its data."""
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def url(zookeeper: ZooKeeperServer) -> str:
    return f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}/topology"


def wiped(server: ZooKeeperServer) -> None:
    server.kill()
    shutil.rmtree(server.directory / "data")


OUTAGES: dict[str, tuple[Callable[[ZooKeeperServer], None], float]] = {
    # name -> (what happens, for how many seconds; sessions last one second)
    "stopped for a moment": (ZooKeeperServer.stop, 0.2),
    "killed for a while": (ZooKeeperServer.kill, 3.0),
    "paused within the session": (ZooKeeperServer.pause, 0.3),
    "paused beyond the session": (ZooKeeperServer.pause, 5.0),
    "lost with all its data": (wiped, 2.0),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_it_is_back_within_three_seconds_of_the_servers_return(
    own_server: ZooKeeperServer, opened: Callable[..., TopologyStore], outage: str
) -> None:
    """After any outage a follower learns of a change by the watch alone, and the old one stayed."""
    url = f"zookeeper://{own_server.hosts}/topology"
    store = opened(url, session_timeout_s=SESSION_S)
    for epoch in range(1, 31):  # so that a server without its data has seen far less than we
        store.write(at(epoch), expected_epoch=epoch - 1 or None)
    follower = Follower(store, None, poll_s=NEVER_S)
    follower.start(START_S)
    happen, lasting_s = OUTAGES[outage]
    happen(own_server)
    time.sleep(lasting_s)
    assert follower.current == at(30)
    own_server.resume() if own_server.running else own_server.start()
    back_at = time.monotonic()
    put_by_another_client(own_server, at(31))
    eventually(lambda: follower.current == at(31))
    took_s = time.monotonic() - back_at
    print(f"ZooKeeper {outage} ({lasting_s} s): followed again after {took_s:.2f} s")
    follower.close()
    assert took_s < BACK_S


def put_by_another_client(server: ZooKeeperServer, topology: Topology) -> None:
    fresh = open_store(f"zookeeper://{server.hosts}/topology")
    found = fresh.read()
    fresh.write(topology, expected_epoch=found.epoch if found else None)
    fresh.close()


def test_it_is_back_after_a_network_that_lost_everything(
    zookeeper: ZooKeeperServer, opened: Callable[..., TopologyStore]
) -> None:
    """A connection whose bytes are swallowed is replaced as soon as another one can be made."""
    path = f"/{uuid.uuid4().hex}"
    with TcpProxy("127.0.0.1", zookeeper.port) as proxy:
        store = opened(f"zookeeper://127.0.0.1:{proxy.port}{path}", timeout_s=4)
        store.write(at(1), expected_epoch=None)
        proxy.blackhole("both", swallow=True)
        with pytest.raises(StoreUnavailable):
            store.read()
        proxy.heal()
        back_at = time.monotonic()
        eventually(lambda: answers(store))
        took_s = time.monotonic() - back_at
    print(f"silent network: back after {took_s:.2f} s")
    assert took_s < BACK_S


@pytest.mark.parametrize(("silent", "limit_s"), [(False, 1.5), (True, BACK_S)])
def test_pauses_between_attempts_stay_short(
    opened: Callable[..., TopologyStore], silent: bool, limit_s: float
) -> None:
    """However long the server has refused or has been silent: it could be back at any moment."""
    attempts: list[float] = []
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]
        opened(f"zookeeper://127.0.0.1:{port}/topology").watch(lambda: None)
        while not attempts or attempts[-1] < attempts[0] + 6:
            connections.append(server.accept()[0])
            attempts.append(time.monotonic())
            if not silent:
                connections.pop().close()
    for connection in connections:
        connection.close()
    longest_s = max(after - before for before, after in pairwise(attempts))
    print(f"{len(attempts)} attempts in 6 s, the longest pause {longest_s:.2f} s")
    assert longest_s < limit_s


def answers(store: TopologyStore) -> bool:
    try:
        return store.read() is not None
    except StoreUnavailable:
        return False


def test_a_call_without_a_server_ends_in_time_and_says_why(
    opened: Callable[..., TopologyStore], own_server: ZooKeeperServer
) -> None:
    """No call outlives its timeout; a write that was never sent is definite."""
    store = opened(f"zookeeper://{own_server.hosts}/topology", timeout_s=0.5)
    own_server.kill()
    for call in (store.read, lambda: store.write(at(1), expected_epoch=None)):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"within 0.5 s.*refused") as caught:
            call()
        assert time.monotonic() - began < 15
        assert caught.value.definite


def test_a_write_whose_answer_is_lost_says_that_it_may_have_happened(
    zookeeper: ZooKeeperServer, opened: Callable[..., TopologyStore]
) -> None:
    """And it is not sent again: the next reader sees what became of it."""
    path = f"/{uuid.uuid4().hex}"
    with TcpProxy("127.0.0.1", zookeeper.port) as proxy:
        store = opened(f"zookeeper://127.0.0.1:{proxy.port}{path}")
        store.write(at(1), expected_epoch=None)
        proxy.lose_next_reply(b'"epoch":2')
        with pytest.raises(StoreUnavailable) as caught:
            store.write(at(2), expected_epoch=1)
        assert not caught.value.definite
        assert store.read() == at(2)
        with pytest.raises(StaleEpoch):
            store.write(at(2), expected_epoch=1)


def test_closing_ends_a_call_that_waits(
    own_server: ZooKeeperServer, opened: Callable[..., TopologyStore]
) -> None:
    """A process that ends while ZooKeeper is away does not wait for it."""
    store = opened(f"zookeeper://{own_server.hosts}/topology", timeout_s=60)
    own_server.kill()
    Timer(0.2, store.close).start()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.read()
    assert time.monotonic() - began < 10


def test_threads_begin_with_the_first_call_and_end_with_close(url: str) -> None:
    """Opening starts nothing; closing leaves nothing."""
    before = set(threads())
    store = open_store(url)
    assert set(threads()) <= before
    store.watch(lambda: None)
    store.read()
    assert not set(threads()) <= before
    store.close()
    eventually(lambda: set(threads()) <= before)


FORKED = """
import os, sys
from topology.errors import StoreUnavailable
from topology.stores import open_store
store = open_store(sys.argv[1])
store.read()
child = os.fork()
if child == 0:
    try:
        store.read()
    except StoreUnavailable as error:
        os._exit(7 if "before a fork" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), store.read())
store.close()
"""


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on(url: str) -> None:
    """The child has none of the threads: a clear error instead of a wait for nobody."""
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert (done.returncode, done.stdout) == (0, "7 None\n"), done.stderr


def test_with_digest_only_its_user_reads_and_writes(
    url: str, opened: Callable[..., TopologyStore]
) -> None:
    """What is created with credentials belongs to them; others are refused, definitely."""
    owner = opened(url, digest="operator:hunter2")
    owner.write(at(1), expected_epoch=None)
    assert opened(url, digest="operator:hunter2").read() == at(1)
    strangers: list[dict[str, object]] = [{}, {"digest": "operator:wrong"}]
    for options in strangers:
        stranger = opened(url, **options)
        with pytest.raises(StoreUnavailable, match="digest") as caught:
            stranger.read()
        assert caught.value.definite


def test_a_read_only_znode_refuses_the_write_definitely(
    zookeeper: ZooKeeperServer, url: str, opened: Callable[..., TopologyStore]
) -> None:
    """Sites may let processes read what only operators write."""
    opened(url).write(at(1), expected_epoch=None)
    client = KazooClient(zookeeper.hosts)
    client.start()
    path = url.removeprefix(f"zookeeper://{zookeeper.hosts}")
    client.set_acls(path, READ_ACL_UNSAFE)
    client.stop()
    client.close()
    reader = opened(url)
    assert reader.read() == at(1)
    with pytest.raises(StoreUnavailable, match="NoAuth") as caught:
        reader.write(at(2), expected_epoch=1)
    assert caught.value.definite


def test_secrets_stay_out_of_logs_and_errors(
    own_server: ZooKeeperServer,
    opened: Callable[..., TopologyStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also at level DEBUG, where the client library would show its requests."""
    with caplog.at_level(logging.DEBUG):
        store = opened(f"zookeeper://{own_server.hosts}/topology", digest="me:hunter2", timeout_s=5)
        store.write(at(1), expected_epoch=None)
        own_server.kill()
        with pytest.raises(TopologyError) as caught:
            store.read()
    assert "hunter2" not in caplog.text + str(caught.value) + repr(store) + repr(store.__dict__)


def test_watches_do_not_add_up(url: str, opened: Callable[..., TopologyStore]) -> None:
    """However often it is read and changed, one change is one request for a new watch."""
    store, writer = opened(url), opened(url)
    hints: list[float] = []
    hinted = Event()

    def note() -> None:
        hints.append(time.monotonic())
        hinted.set()

    store.watch(note)
    for epoch in range(1, 31):
        hinted.clear()
        writer.write(at(epoch), expected_epoch=epoch - 1 or None)
        assert hinted.wait(30)
        store.read()
    assert len(hints) <= 30 + 5
