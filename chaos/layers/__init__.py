"""What is tested: the cluster layer, or another one by an adapter, to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

#: Name -> module and class; imported in the processes that need it.
LAYERS: Final[Mapping[str, tuple[str, str]]] = {
    "cluster-layer": ("chaos.layers.cluster", "Cluster"),
    "channels_redis-core": ("chaos.layers.peers", "Core"),
    "channels_redis-pubsub": ("chaos.layers.peers", "PubSub"),
}


class Layer(Protocol):
    """What the workloads do with a layer. Errors are ClusterErrors, or defects."""

    timeout_s: float

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def send(self, channel: str, message: dict[str, Any]) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def new_channel(self, prefix: str) -> str: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def locate(self, name: str) -> str:
        """The id of the shard that serves it."""

    def shards(self) -> Sequence[str]: ...
    def lost(self) -> Mapping[str, int]:
        """How many messages it has counted as lost, by reason."""

    async def wait_for_confirms(self) -> None:
        """Return when it knows what became of what was sent without waiting."""

    def unconfirmed(self) -> int:
        """How many of those it has told to have failed, or perhaps."""


def make(name: str, config: Mapping[str, Any], hosts: Sequence[str]) -> Layer:
    """The layer of that name; `hosts` are for those that know no topology."""
    module, kind = LAYERS[name]
    layer: Layer = getattr(import_module(module), kind)(config, hosts)
    return layer
