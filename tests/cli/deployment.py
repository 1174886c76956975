"""A deployment that the command line looks at: real shards, a store, layers that use them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner, Result

from cluster_layer import ClusterChannelLayer
from cluster_layer.cli.main import main
from cluster_layer.embedded import RedisServer
from tests.support.waiting import eventually_async
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store

CLUSTER = "0123456789abcdef"
#: The bundled server, and the system's if there is one.
BINARIES = [None, *([path] if (path := shutil.which("redis-server")) else [])]


@dataclass
class Deployment:
    """Shards a, b, ... and the URL of their topology's store."""

    servers: dict[str, RedisServer]
    store: str

    def run(self, *arguments: str) -> Result:
        """One command, in this process."""
        return CliRunner().invoke(main, [*arguments, "--store", self.store])

    async def look(self, *arguments: str) -> Any:
        """The JSON of a command, while this loop goes on."""
        result = await asyncio.to_thread(self.run, *arguments, "--json")
        assert result.stdout.startswith(("{", "[")), result.output
        return json.loads(result.stdout)

    def client(self, shard: str) -> Any:
        return redis.Redis.from_url(self.servers[shard].url, protocol=2)

    @asynccontextmanager
    async def receiver(self, **config: Any) -> AsyncIterator[ClusterChannelLayer]:
        """A layer that receives; returns when the shards know of it."""
        layer = ClusterChannelLayer(topology=self.store, topology_cache=None, **config)
        waiting = asyncio.create_task(layer.receive(await layer.new_channel()))
        process = layer.stats()["process"]

        async def is_known() -> bool:
            found = await self.look("status")
            return any(one["id"] == process and one["receives"] for one in found["processes"])

        try:
            await eventually_async(is_known)
            yield layer
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await layer.close()


@contextmanager
def deployed(
    directory: Path,
    *,
    options: Sequence[Mapping[str, Any]] = ({}, {}),
    binary: str | None = None,
    store: str | None = None,
    users: str = "",
) -> Iterator[Deployment]:
    """One shard for each mapping of redis.conf options; `users` is "name:password@"."""
    names = "abcdefgh"[: len(options)]
    servers = {
        name: RedisServer(binary=binary, options={"maxmemory": "1gb", **more})
        for name, more in zip(names, options, strict=True)
    }
    url = store or (directory / "topology.json").as_uri()
    try:
        for server in servers.values():
            server.start()
        shards = [
            Shard(name, server.url.replace("redis://", f"redis://{users}"))
            for name, server in servers.items()
        ]
        opened = open_store(url)
        opened.write(initial_topology(shards, cluster=CLUSTER), expected_epoch=None)
        opened.close()
        yield Deployment(servers, url)
    finally:
        for server in servers.values():
            server.close()


async def use(layer: ClusterChannelLayer) -> None:
    """Everything that a layer does, on all shards."""
    for number in range(8):
        channel = await layer.new_channel(f"specific{number}")
        await layer.group_add(f"group-{number}", channel)
        await layer.group_add(f"group-{number}", f"normal-{number}")
        assert await layer.group_count(f"group-{number}") == 2
        await layer.send(channel, {"type": "direct"})
        await layer.group_send(f"group-{number}", {"type": "group"})
        async with asyncio.timeout(20):
            assert (await layer.receive(channel))["type"] == "direct"
            assert (await layer.receive(channel))["type"] == "group"
            assert (await layer.receive(f"normal-{number}"))["type"] == "group"
        await layer.group_discard(f"group-{number}", f"normal-{number}")
        await layer.group_discard(f"group-{number}", channel)
    await layer.flush()


def findings_of(found: Mapping[str, Any], rule: str) -> list[tuple[str, str]]:
    """(severity, where) of the findings of one rule."""
    return [(one["severity"], one["where"]) for one in found["findings"] if one["rule"] == rule]


def problems_of(found: Mapping[str, Any], rule: str) -> list[str]:
    """Where there are problems by one rule; a loaded machine alone makes shards slow, no more."""
    return [where for severity, where in findings_of(found, rule) if severity == "problem"]


def text_of(found: Mapping[str, Any], rule: str) -> str:
    """What the findings of one rule say, remedies included."""
    texts = [
        f"{one['what']} {one['remedy'] or ''}" for one in found["findings"] if one["rule"] == rule
    ]
    return "\n".join(texts)
