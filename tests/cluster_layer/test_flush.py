"""Flush on real shards: what is deleted, what must stay, and whose confirmation is waited for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import pytest
import redis

from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.envelope import CONTROL, decode
from cluster_layer.errors import ShardUnavailable
from cluster_layer.flush import SCAN_COUNT, flush
from cluster_layer.keys import Keys
from cluster_layer.links import Links
from cluster_layer.running import LinkSettings
from tests.support.parts import links_to
from tests.support.waiting import eventually, eventually_async

PREFIX = "we*[ird]?"
TIMEOUT_S = 3.0


@pytest.fixture
def shard(redis_server: RedisServer) -> Iterator[Any]:
    client: Any = redis.Redis.from_url(redis_server.url, protocol=2)
    yield client
    client.close()


@pytest.fixture
async def links(redis_server: RedisServer) -> AsyncIterator[Links]:
    settings = LinkSettings(prefix=PREFIX, timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S)
    links = links_to(redis_server.url, settings=settings, counters=Counters())
    yield links
    await links.close()


async def keys_of(links: Links) -> Keys:
    (link,) = links.all()
    await link.ready()
    return link.keys


def layers_keys(shard: Any) -> set[bytes]:
    """All keys but those of the cluster, which are no layer's."""
    return {key for key in shard.scan_iter() if not key.startswith(b"cluster-layer:")}


def fill(shard: Any, keys: Keys, count: int = 1) -> None:
    pipeline = shard.pipeline()
    for number in range(count):
        pipeline.rpush(keys.queue(f"q{number}"), "m")
        pipeline.zadd(keys.members(f"g{number}"), {"c": 1})
    pipeline.xadd(keys.inbox("p.1!"), {"m": "x"})
    pipeline.zadd(keys.log, {"control": 1})
    pipeline.set(keys.seq, 7)
    pipeline.execute()


async def test_queues_and_memberships_are_deleted(links: Links, shard: Any) -> None:
    """All of them, also where there are more than one look finds."""
    keys = await keys_of(links)
    fill(shard, keys, SCAN_COUNT)
    await flush(links)
    assert layers_keys(shard) == {keys.inbox("p.1!"), keys.seq}


async def test_positions_go_on_rising(links: Links, shard: Any) -> None:
    """The inbox is emptied, but keeps its last id, and the counter its value."""
    keys = await keys_of(links)
    fill(shard, keys)
    last = shard.xinfo_stream(keys.inbox("p.1!"))["last-generated-id"]
    await flush(links)
    assert shard.xlen(keys.inbox("p.1!")) == 0
    assert shard.xinfo_stream(keys.inbox("p.1!"))["last-generated-id"] == last
    assert shard.get(keys.seq) == b"7"


async def test_other_layers_are_left_alone(links: Links, shard: Any) -> None:
    """A prefix with characters that mean something to SCAN matches only itself."""
    keys = await keys_of(links)
    for prefix in ("we", "weXird", "weXX[ird]?", "we*[ird]?more"):
        fill(shard, Keys(prefix, "0" * 16, keys.incarnation, 0))
    before = layers_keys(shard)
    fill(shard, keys)
    await flush(links)
    assert layers_keys(shard) == before | {keys.inbox("p.1!"), keys.seq}


async def test_a_flush_without_processes_waits_for_nobody(links: Links) -> None:
    """It returns as soon as the shards are empty."""
    await keys_of(links)
    async with asyncio.timeout(0.9 * TIMEOUT_S):
        await flush(links)


async def test_every_process_is_asked_and_waited_for(links: Links, shard: Any) -> None:
    """It returns when all that were told have confirmed."""
    keys = await keys_of(links)
    subscriptions = [shard.pubsub() for _ in range(2)]
    for subscription in subscriptions:
        subscription.subscribe(keys.control)
        assert subscription.get_message(timeout=10)["type"] == "subscribe"
    flushing = asyncio.ensure_future(flush(links))
    for subscription in subscriptions:
        message = await asyncio.to_thread(eventually, lambda s=subscription: s.get_message())
        envelope = decode(message["data"].partition(b":")[2])
        control = msgpack.unpackb(envelope.body)
        assert (envelope.kind, control["op"]) == (CONTROL, "flush")
        assert not flushing.done()
        shard.rpush(keys.reply(control["token"]), "process")
        subscription.close()
    async with asyncio.timeout(0.9 * TIMEOUT_S):
        await flushing
    assert layers_keys(shard) == set()


async def test_a_silent_process_is_not_waited_for_for_ever(links: Links, shard: Any) -> None:
    """It empties itself when it can; the flush returns after its deadline."""
    keys = await keys_of(links)
    subscription = shard.pubsub()
    subscription.subscribe(keys.control)
    assert subscription.get_message(timeout=10)["type"] == "subscribe"
    before = asyncio.get_running_loop().time()
    await flush(links)
    assert 0.9 * TIMEOUT_S < asyncio.get_running_loop().time() - before < 5 * TIMEOUT_S
    subscription.close()


async def test_a_dead_shard_is_told(links: Links, redis_server: RedisServer) -> None:
    """Some shards may not be empty: that is an error, and it does not take long."""
    await keys_of(links)
    redis_server.kill()
    await eventually_async(lambda: not any(links.connected().values()))
    with pytest.raises(ShardUnavailable):
        await flush(links)
