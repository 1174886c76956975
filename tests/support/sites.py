"""Sites of their own: shards, and their topology in ZooKeeper, for tests that break them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from cluster_layer.embedded import RedisServer, start_shards
from tests.support.command_line import CommandLine
from tests.support.layers import unique_prefix
from tests.support.stored import stored
from topology.history import Entry
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.stores import open_store


@dataclass(frozen=True, slots=True)
class Site:
    """`servers`: shard id -> its server, those that are not in the topology yet included."""

    store: str
    servers: Mapping[str, RedisServer]
    prefix: str

    def config(self, **more: Any) -> dict[str, Any]:
        """A CONFIG with room for everything: here a full queue is not what is looked for."""
        return {
            "topology": {"url": self.store},
            "topology_cache": None,
            "prefix": self.prefix,
            "capacity": 50_000,
            "expiry": 300,
            **more,
        }

    @property
    def cli(self) -> CommandLine:
        return CommandLine(self.store, within_s=120)

    def topology(self) -> Topology:
        return stored(self.store)

    def history(self) -> list[Entry]:
        with closing(open_store(self.store)) as store:
            return list(store.history())


@contextmanager
def site(zookeeper: str, shards: int, *, spare: int = 0) -> Iterator[Site]:
    """Shards s0, s1, ... in a topology at a path of its own, and spare servers beside them."""
    with start_shards(shards + spare) as servers:
        by_id = {f"s{index}": server for index, server in enumerate(servers)}
        url = f"zookeeper://{zookeeper}/{secrets.token_hex(8)}"
        first = [Shard(name, server.url) for name, server in list(by_id.items())[:shards]]
        with closing(open_store(url)) as store:
            topology = initial_topology(first, cluster=secrets.token_hex(8))
            store.write(topology, expected_epoch=None)
        yield Site(url, by_id, unique_prefix())
