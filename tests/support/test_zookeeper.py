"""The ZooKeeper server that other tests rely on."""

from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

from tests.support.waiting import eventually
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture
def client(zookeeper: ZooKeeperServer) -> Iterator[KazooClient]:
    client = KazooClient(zookeeper.hosts)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


def test_it_serves(client: KazooClient) -> None:
    """A started server takes writes and answers reads."""
    client.create("/test_it_serves", b"value")
    assert client.get("/test_it_serves")[0] == b"value"


def test_data_and_port_outlive_a_kill() -> None:
    """What was acknowledged is there after SIGKILL and a start, on the same port."""
    with ZooKeeperServer() as server:
        client = KazooClient(server.hosts)
        client.start(timeout=30)
        client.create("/kept", b"value")
        port = server.port
        server.kill()
        assert not server.running
        server.start()
        assert server.port == port
        client.retry.max_delay = 0.5
        assert eventually(lambda: client.connected and client.get("/kept")[0]) == b"value"
        client.stop()
        client.close()
