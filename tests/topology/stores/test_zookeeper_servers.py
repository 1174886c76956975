"""How the servers of an ensemble are, while they go one by one."""

from collections.abc import Callable, Iterator

import pytest

from chaos.environments.proxy import ProxyThread
from chaos.environments.zookeeper import ZooKeeperCluster, own_ensemble
from tests.support.waiting import eventually
from topology.ports import OperatorStore, StoreServer


@pytest.fixture
def ensemble() -> Iterator[ZooKeeperCluster]:
    thread = ProxyThread()
    cluster = ZooKeeperCluster(own_ensemble(3), thread)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()
        thread.close()


def test_servers_of_an_ensemble(
    ensemble: ZooKeeperCluster, opened: Callable[..., OperatorStore]
) -> None:
    """One leads, two follow; one that is killed is told; one that is left alone serves nobody."""
    hosts = ",".join(server.hosts for server in ensemble.servers)
    store = opened(f"zookeeper://{hosts}/topology", timeout_s=3.0)
    found = store.servers()
    assert [server.address for server in found] == hosts.split(",")
    assert sorted(str(server.role) for server in found) == ["follower", "follower", "leader"]
    assert all(server.version for server in found)

    first, second, _ = ensemble.servers
    first.kill()

    def the_others_serve() -> bool:
        return [server.serves for server in store.servers()] == [False, True, True]

    eventually(the_others_serve)
    assert "refused" in str(store.servers()[0].reason)

    second.kill()

    def nobody_serves() -> bool:
        return not any(server.serves for server in store.servers())

    eventually(nobody_serves)
    alone: StoreServer = store.servers()[2]
    assert "quorum" in str(alone.reason)
