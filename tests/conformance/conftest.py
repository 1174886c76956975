"""The ways to reach shards with which every behaviour is checked."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from tests.support.layers import open_layer, unique_prefix
from tests.support.sentinels import MASTER_NAME, PASSWORD, SentinelServer


@pytest.fixture(scope="session")
def sentinel(shards: list[RedisServer]) -> Iterator[SentinelServer]:
    """A Sentinel that watches the first shard."""
    with SentinelServer(shards[0]) as server:
        yield server


def _through(sentinel: SentinelServer, database: int) -> dict[str, Any]:
    return {
        "sentinels": [("127.0.0.1", sentinel.port)],
        "master_name": MASTER_NAME,
        "sentinel_kwargs": {"password": PASSWORD},
        "db": database,
    }


@pytest.fixture(scope="session")
def private_server() -> Iterator[RedisServer]:
    """A server with a password that is reached by its unix socket."""
    with RedisServer(password="p@ss/word", unix_socket=True) as server:
        yield server


WAYS = (
    "1 shard",
    "3 shards",
    "10 databases",
    "Sentinel",
    "Sentinel, 3 databases",
    "unix socket, password, encryption",
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, shards: list[RedisServer]) -> dict[str, Any]:
    """CONFIG of the ways that channels_redis's own tests have, and of one more."""
    if request.param == "1 shard":
        return {"hosts": [shards[0].url]}
    if request.param == "3 shards":
        return {"hosts": [shard.url for shard in shards]}
    if request.param == "10 databases":
        return {"hosts": [f"{shards[0].url}/{database}" for database in range(10)]}
    if request.param == "unix socket, password, encryption":
        server: RedisServer = request.getfixturevalue("private_server")
        return {"hosts": [server.unix_url], "symmetric_encryption_keys": ["new key", "old key"]}
    sentinel: SentinelServer = request.getfixturevalue("sentinel")
    count = 1 if request.param == "Sentinel" else 3
    return {"hosts": [_through(sentinel, database) for database in range(count)]}


@pytest.fixture
async def make_layer(way: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    """Make layers with one prefix and any CONFIG; they are closed after the test."""
    prefix = unique_prefix()
    async with AsyncExitStack() as stack:

        async def make(**config: Any) -> ClusterChannelLayer:
            return await stack.enter_async_context(
                open_layer(**{**way, "prefix": prefix, **config})
            )

        yield make
