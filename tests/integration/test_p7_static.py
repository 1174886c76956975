"""P7: with ZooKeeper gone traffic goes on, and a process starts from its last-good copy."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    names_on_all_shards,
    numbered,
    open_layer,
    receive,
    unique_prefix,
)
from tests.support.zookeeper import ZooKeeperServer
from topology.errors import TopologyError
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store


@pytest.fixture
def url(shards: list[RedisServer]) -> Iterator[tuple[str, ZooKeeperServer]]:
    """A topology of the three shards in a ZooKeeper of our own, which tests may stop."""
    with ZooKeeperServer() as server:
        url = f"zookeeper://{server.hosts}/site"
        store = open_store(url)
        topology = initial_topology(
            [Shard(f"shard-{s.port}", s.url) for s in shards], cluster="7" * 16
        )
        store.write(topology, expected_epoch=None)
        store.close()
        yield url, server


async def _talk(layer: ClusterChannelLayer) -> None:
    """Every verb, with names on every shard."""
    channel = await layer.new_channel()
    for number, name in enumerate(await names_on_all_shards(layer)):
        await layer.group_add(name, channel)
        await layer.group_send(name, numbered(number))
        assert await receive(layer, channel) == numbered(number)
        await layer.send(name, numbered(number))
        assert await receive(layer, name) == numbered(number)
        await layer.group_discard(name, channel)


async def test_traffic_goes_on_and_processes_start_without_zookeeper(
    url: tuple[str, ZooKeeperServer], tmp_path: Path
) -> None:
    """Killed, it is missed by nobody who has a copy; who has none is told so in time."""
    topology, zookeeper = url
    config: dict[str, Any] = {
        "topology": topology,
        "topology_cache": str(tmp_path / "copy.json"),
        "prefix": unique_prefix(),
    }
    async with open_layer(**config) as layer:
        await _talk(layer)
        zookeeper.kill()
        for _ in range(20):
            await _talk(layer)
        async with open_layer(**config) as another:
            begin = time.monotonic()
            await _talk(another)
            print(f"started from the copy in {time.monotonic() - begin:.1f} s")
            channel = await another.new_channel()
            await layer.send(channel, numbered(1))
            assert await receive(another, channel) == numbered(1)
    async with open_layer(**{**config, "topology_cache": None}) as lonely:
        with pytest.raises(TopologyError):
            await lonely.send("orders", numbered(1))


async def test_the_copy_is_for_its_owner_alone(
    url: tuple[str, ZooKeeperServer], tmp_path: Path
) -> None:
    """The URLs in it may hold passwords."""
    copy = tmp_path / "state" / "copy.json"
    async with open_layer(topology=url[0], topology_cache=str(copy)) as layer:
        await layer.locate("orders")
        assert copy.stat().st_mode & 0o077 == 0
