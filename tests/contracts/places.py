"""Places where a topology may be kept, one for each kind of store."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kazoo.client import KazooClient

from tests.support.zookeeper import ZooKeeperServer
from topology.ports import OperatorStore
from topology.stores import memory, open_store


@dataclass
class Place:
    """One place where a topology may be, and another program's ways to spoil it."""

    url: str
    put: Callable[[bytes], object]
    delete: Callable[[], object]
    stores: list[OperatorStore] = field(default_factory=list)

    def open(self) -> OperatorStore:
        self.stores.append(open_store(self.url))
        return self.stores[-1]


def memory_place() -> Place:
    name = uuid.uuid4().hex
    cell = memory._cells.setdefault(name, memory._Cell())
    return Place(
        f"memory://{name}",
        lambda data: setattr(cell, "data", data),
        lambda: setattr(cell, "data", None),
    )


def file_place(directory: Path) -> Place:
    path = directory / "topology.json"
    return Place(path.as_uri(), path.write_bytes, path.unlink)


def zookeeper_place(server: ZooKeeperServer, client: KazooClient) -> Place:
    path = f"/{uuid.uuid4().hex}/topology"

    def put(data: bytes) -> None:
        client.ensure_path(path)
        client.set(path, data)

    return Place(f"zookeeper://{server.hosts}{path}", put, lambda: client.delete(path))
