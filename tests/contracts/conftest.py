"""One place of each kind of store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.contracts.places import Place, file_place, memory_place, zookeeper_place


@pytest.fixture(params=["memory", "file", "zookeeper"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    client: KazooClient | None = None
    if request.param == "memory":
        made = memory_place()
    elif request.param == "file":
        made = file_place(tmp_path)
    else:
        server = request.getfixturevalue("zookeeper")
        client = KazooClient(server.hosts)
        client.start()
        made = zookeeper_place(server, client)
    yield made
    for store in made.stores:
        store.close()
    if client is not None:
        client.stop()
        client.close()
