"""Layers on real servers, and the questions that tests ask them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from cluster_layer import ClusterChannelLayer
from cluster_layer.routing import fixed_cluster
from topology.codec import encode
from topology.errors import ClusterError
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.stores import open_store

Message = dict[str, Any]
Outcome = Literal["ok", "no", "unknown"]

DEADLINE_S = 20.0  # of what must happen; far above what it takes


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


def unique_prefix() -> str:
    """Separates one test from all others on the same servers."""
    return f"test-{uuid.uuid4().hex[:12]}"


def shared_config(servers: Iterable[HasUrl], **more: Any) -> dict[str, Any]:
    """A CONFIG for several layers of one test."""
    return {"hosts": [server.url for server in servers], "prefix": unique_prefix(), **more}


@asynccontextmanager
async def open_layer(
    servers: Iterable[HasUrl] | None = None, **config: Any
) -> AsyncIterator[ClusterChannelLayer]:
    """A layer with a prefix of its own unless one is given, closed at the end."""
    if servers is not None:
        config["hosts"] = [server.url for server in servers]
    layer = ClusterChannelLayer(**{"prefix": unique_prefix(), **config})
    try:
        yield layer
    finally:
        await layer.close()


def topology_store(topology: Topology) -> str:
    """The URL of a store in this process's memory that holds this topology."""
    url = f"memory://{uuid.uuid4().hex}"
    store = open_store(url)
    store.write(topology, expected_epoch=None)
    store.close()
    return url


def topology_file(path: Path, servers: Mapping[str, HasUrl]) -> str:
    """The URL of a topology that reaches each shard, by its id, at this server.

    Two files with the same ids have the same table: so one process can reach the shards through
    proxies, and another directly.
    """
    shards = [Shard(shard_id, server.url) for shard_id, server in servers.items()]
    path.write_bytes(encode(initial_topology(shards, cluster=fixed_cluster(servers))))
    return path.as_uri()


def numbered(number: int, **more: Any) -> Message:
    return {"type": "test.message", "n": number, **more}


async def receive(layer: ClusterChannelLayer, channel: str) -> Message:
    """The next message, which must come."""
    async with asyncio.timeout(DEADLINE_S):
        message: Message = await layer.receive(channel)
        return message


async def receive_numbers(layer: ClusterChannelLayer, channel: str, count: int) -> list[int]:
    """The numbers of the next `count` messages, which must come."""
    return [(await receive(layer, channel))["n"] for _ in range(count)]


async def numbers_before_end(layer: ClusterChannelLayer, channel: str) -> list[int]:
    """The numbers of all messages up to one that says {"end": True}."""
    numbers: list[int] = []
    while True:
        message = await receive(layer, channel)
        if message.get("end"):
            return numbers
        numbers.append(message["n"])


async def only_end_comes(layer: ClusterChannelLayer, channel: str) -> bool:
    """Send an end by the calling task and see it come next: nothing was on its way before it."""
    await layer.send(channel, numbered(-1, end=True))
    return await numbers_before_end(layer, channel) == []


async def outcome_of(operation: Awaitable[object]) -> Outcome:
    """What its error, if any, says about whether the operation happened."""
    try:
        await operation
    except ClusterError as error:
        return "no" if error.definite else "unknown"
    return "ok"


async def name_on(layer: ClusterChannelLayer, shard: str, stem: str = "name") -> str:
    """A channel or group name whose home is this shard."""
    for number in range(10_000):
        name = f"{stem}-{number}"
        if await layer.locate(name) == shard:
            return name
    raise AssertionError(f"no name has its home on {shard}")


async def new_channel_on(layer: ClusterChannelLayer, shard: str) -> str:
    """A channel of this process whose inbox is on this shard."""
    for number in range(10_000):
        channel = await layer.new_channel(f"specific{number}")
        if await layer.locate(channel) == shard:
            return channel
    raise AssertionError(f"no inbox has its home on {shard}")


async def names_on_all_shards(layer: ClusterChannelLayer, stem: str = "name") -> list[str]:
    """One name for each shard."""
    await layer.locate(stem)  # From here on the shards are known.
    return [await name_on(layer, shard, stem) for shard in sorted(layer.stats()["shards"])]
