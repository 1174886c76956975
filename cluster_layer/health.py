"""Is the layer healthy? It sends to itself through every shard, and says how long that took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from cluster_layer.envelope import Message
from topology.errors import ClusterError

MESSAGE_TYPE: Final = "cluster_layer.health"


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """One shard: `latency_s` from the send to the receipt, or `error`, which says why not."""

    latency_s: float | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at the layer found."""

    epoch: int
    shards: Mapping[str, ShardHealth]
    stalled: tuple[str, ...] = ()  # readers that make no progress

    @property
    def ok(self) -> bool:
        """Whether every shard carried a message, and every reader gets on."""
        return not self.stalled and all(shard.ok for shard in self.shards.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shards = {name: asdict(shard) for name, shard in self.shards.items()}
        fields = {"epoch": self.epoch, "shards": shards, "stalled": list(self.stalled)}
        return {"ok": self.ok, **fields}


class Layer(Protocol):
    """What is needed of a layer."""

    async def new_channel(self, prefix: str = ...) -> str: ...
    async def locate(self, name: str) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: Message) -> None: ...
    async def receive(self, channel: str) -> Message: ...
    async def channel_close(self, channel: str) -> None: ...


async def through_all(
    layer: Layer, shards: Iterable[str], timeout_s: float
) -> dict[str, ShardHealth]:
    """Send to a group on every shard and receive it here; all at once, each within `timeout_s`."""
    names = list(shards)
    found = await asyncio.gather(*(_through(layer, shard, timeout_s) for shard in names))
    return dict(zip(names, found, strict=True))


async def _through(layer: Layer, shard: str, timeout_s: float) -> ShardHealth:
    channel = await layer.new_channel("health")
    try:
        async with asyncio.timeout(timeout_s):
            group = await _group_on(layer, shard, channel)
            await layer.group_add(group, channel)
            begun = time.perf_counter()
            await layer.group_send(group, {"type": MESSAGE_TYPE})
            while (await layer.receive(channel)).get("type") != MESSAGE_TYPE:
                pass  # a gap message, say
            return ShardHealth(time.perf_counter() - begun)
    except TimeoutError:
        return ShardHealth(None, f"nothing came back within {timeout_s:g} s")
    except ClusterError as error:
        return ShardHealth(None, str(error))
    finally:
        await _close(layer, channel, timeout_s)


async def _group_on(layer: Layer, shard: str, channel: str) -> str:
    """A name of our own whose home is this shard; found soon, as each shard has its share."""
    stem = channel.replace("!", ".")
    number = 0
    while await layer.locate(name := f"{stem}.{number}") != shard:
        number += 1
        if number % 1000 == 0:  # a shard that owns next to nothing
            await asyncio.sleep(0)
    return name


async def _close(layer: Layer, channel: str, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await layer.channel_close(channel)
    except (ClusterError, TimeoutError):
        pass  # it is forgotten here all the same
