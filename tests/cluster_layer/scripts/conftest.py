"""Shards of both redis-servers: the embedded one, and the machine's."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_layer.embedded import RedisServer, find_binary
from tests.cluster_layer.scripts.shard import Shard
from tests.support.waiting import eventually

BINARIES = sorted({find_binary(), shutil.which("redis-server") or find_binary()})


@pytest.fixture(scope="module", params=BINARIES, ids=lambda path: Path(path).parent.name)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=request.param) as server:
        yield server


@pytest.fixture
def shard(server: RedisServer) -> Iterator[Shard]:
    shard = Shard(server)
    shard.redis.flushall()
    shard.redis.set("epoch", shard.epoch, ex=1000)
    yield shard
    shard.redis.close()


@pytest.fixture
def published(shard: Shard) -> Any:
    """What the group's subscribers hear, as a function that returns the next payload."""
    subscription = shard.redis.pubsub()
    subscription.subscribe("pubsub")
    assert subscription.get_message(timeout=10)["type"] == "subscribe"

    def following() -> str:
        message = eventually(lambda: subscription.get_message(timeout=1))
        return str(message["data"].decode())

    yield following
    subscription.close()
