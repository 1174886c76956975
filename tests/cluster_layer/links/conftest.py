"""What the tests of links share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from cluster_layer.embedded import RedisServer
from tests.cluster_layer.links.bench import Bench, Counting
from tests.support.proxy import TcpProxy


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def counting(redis_server: RedisServer) -> Iterator[Counting]:
    counting = Counting(redis_server)
    yield counting
    counting.shard.close()
