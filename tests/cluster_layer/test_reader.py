"""A dedicated connection: opened again as long as its owner lives, given up with its life."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from cluster_layer.connection import Connection
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Link
from cluster_layer.reader import Reader
from cluster_layer.running import LinkSettings
from tests.support.parts import link_to
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)


class Blocked(Reader[Connection]):
    """Reads a list of numbers, blocking; a `defect` breaks it like a mistake of ours."""

    connection_class = Connection

    def __init__(self, link: Link) -> None:
        self.read: list[bytes] = []
        self.lives: list[str] = []
        self.failures: list[str] = []
        self.defects = 0
        super().__init__(link)

    async def _read(self, connection: Connection, keys: Keys) -> None:
        self.lives.append(keys.incarnation)
        if self.defects:
            self.defects -= 1
            raise LookupError("a defect")
        while True:
            popped = await connection.execute(("BLPOP", "numbers", 60), timeout_s=60)
            self.read.append(popped[1])

    def _failed(self, error: ShardUnavailable) -> None:
        self.failures.append(error.reason)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[Link, Blocked]]:
    link = link_to(url, SETTINGS)
    reader = Blocked(link)
    try:
        await link.ready()
        await eventually_async(lambda: reader.lives)
        yield link, reader
    finally:
        await asyncio.gather(reader.stop(), return_exceptions=True)
        await link.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def shard(redis_server: RedisServer) -> Iterator[Any]:
    client: Any = redis.Redis.from_url(redis_server.url)
    yield client
    client.close()


async def test_a_cut_is_healed(proxy: TcpProxy, shard: Any) -> None:
    """The connection is opened again, without anybody asking, and the owner is told why."""
    async with reading(proxy.url) as (_, reader):
        proxy.cut()
        await eventually_async(lambda: len(reader.lives) == 2)
        assert reader.failures
        assert set(reader.lives) == {reader.lives[0]}
        shard.rpush("numbers", "1")
        await eventually_async(lambda: reader.read == [b"1"])


async def test_an_outage_is_outlived(redis_server: RedisServer) -> None:
    """However often opening fails, it is tried again; a restarted shard is another life."""
    async with reading(redis_server.url) as (_, reader):
        redis_server.kill()
        await eventually_async(lambda: len(reader.failures) > 3)
        redis_server.start()
        await eventually_async(lambda: len(reader.lives) == 2)
        assert reader.lives[1] != reader.lives[0]


async def test_a_defect_does_not_end_the_reading(
    proxy: TcpProxy, shard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged with its traceback, and reading goes on."""
    async with reading(proxy.url) as (_, reader):
        reader.defects = 2
        proxy.cut()
        await eventually_async(lambda: len(reader.lives) == 4)
        shard.rpush("numbers", "1")
        await eventually_async(lambda: reader.read == [b"1"])
    assert caplog.text.count("LookupError: a defect") == 1  # the second one is only counted


async def test_a_promotion_is_noticed_without_a_disconnect(shard: Any, proxy: TcpProxy) -> None:
    """Within seconds the reader has given up a connection that talks to the shard's last life."""
    with RedisServer() as other:
        async with reading(proxy.url) as (link, reader):
            shard.replicaof("127.0.0.1", other.port)
            shard.replicaof("no", "one")
            before = reader.lives[0]
            await eventually_async(lambda: before != link.keys.incarnation, 15)
            await eventually_async(lambda: reader.lives[-1] == link.keys.incarnation, 15)


async def test_stopping_leaves_nothing_behind(proxy: TcpProxy) -> None:
    """Task and socket end, in whatever state the reader is."""
    async with reading(proxy.url):
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await eventually_async(lambda: proxy.connections_open == 0)

    link = link_to(proxy.url, SETTINGS)
    proxy.blackhole()
    reader = Blocked(link)
    await eventually_async(lambda: proxy.connections_open == 2)
    await asyncio.gather(reader.stop(), return_exceptions=True)
    await link.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert link.watchers == []
