"""ZooKeeper as the suite runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.environments.proxy import ProxyThread
from chaos.environments.zookeeper import SESSION_S, ZooKeeperCluster, own_ensemble
from tests.support.waiting import eventually
from topology.errors import TopologyInvalid
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store

TOPOLOGY = initial_topology([Shard("shard-0", "redis://127.0.0.1:1")], cluster="0" * 16)


@pytest.fixture
def thread() -> Iterator[ProxyThread]:
    thread = ProxyThread()
    yield thread
    thread.close()


@pytest.fixture
def cluster(thread: ProxyThread) -> Iterator[ZooKeeperCluster]:
    cluster = ZooKeeperCluster(own_ensemble(1), thread)
    cluster.start(TOPOLOGY)
    yield cluster
    cluster.close()


def test_a_process_reads_what_is_written(cluster: ZooKeeperCluster) -> None:
    """By its own way to the servers; garbage is garbage, and the next epoch is good again."""
    store = open_store(**cluster.settings_of(0))
    assert store.read() == TOPOLOGY
    cluster.overwrite(b"garbage")
    with pytest.raises(TopologyInvalid):
        store.read()
    cluster.overwrite(None)
    assert store.read() is None
    cluster.advance()
    found = store.read()
    assert found is not None
    assert found.epoch == TOPOLOGY.epoch + 1
    store.close()


def test_a_session_ends_when_its_process_is_not_heard(cluster: ZooKeeperCluster) -> None:
    """The server forgets it after its timeout."""
    store = open_store(**cluster.settings_of(0))
    assert store.read() == TOPOLOGY
    sessions = cluster.sessions()
    assert sessions
    for link in cluster.links_of(0):
        link.blackhole("both", swallow=True)
    eventually(lambda: not sessions & cluster.sessions(), deadline_s=20 * SESSION_S)
    store.close()


def test_a_server_elsewhere_stays_behind(cluster: ZooKeeperCluster) -> None:
    """It holds what was true when it was asked for."""
    behind = cluster.elsewhere()
    cluster.advance()
    store = open_store(f"zookeeper://{behind.hosts}/chaos")
    assert store.read() == TOPOLOGY
    store.close()
