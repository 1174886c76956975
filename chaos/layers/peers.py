"""The layers of channels_redis, by an adapter, as their documentation has them set up.

They say of no error whether the operation may have happened, so all are unknown, except a full
channel. They count no losses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from channels_redis.utils import _consistent_hash
from redis.exceptions import RedisError

from topology.errors import ClusterError

T = TypeVar("T")

#: Settings that they have, too.
SETTINGS = ("prefix", "capacity", "expiry")


class PeerFull(ClusterError):
    """The channel was full: nothing was sent."""


class PeerRefused(ClusterError):
    """The layer does not do that; its documentation says so."""


class PeerFailed(ClusterError):
    """Some error of redis-py or the network; the operation may have happened."""

    definite = False


class _Peer:
    """What both have in common."""

    def __init__(self, layer: Any, config: Mapping[str, Any], hosts: Sequence[str]) -> None:
        self._layer = layer
        self._count = len(hosts)
        self.timeout_s = float(config["timeout"])

    async def open(self) -> None:
        """Nothing is opened before the first call."""

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        await _translated(self._layer.send(channel, message))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await _translated(self._layer.group_send(group, message))

    async def group_add(self, group: str, channel: str) -> None:
        await _translated(self._layer.group_add(group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        await _translated(self._layer.group_discard(group, channel))

    async def new_channel(self, prefix: str) -> str:
        channel: str = await self._layer.new_channel(prefix)
        return channel

    async def receive(self, channel: str) -> dict[str, Any]:
        message: dict[str, Any] = await self._layer.receive(channel)
        return message

    async def locate(self, name: str) -> str:
        return f"shard-{_consistent_hash(name, self._count)}"

    def shards(self) -> Sequence[str]:
        return [f"shard-{index}" for index in range(self._count)]

    def lost(self) -> Mapping[str, int]:
        return {}

    async def wait_for_confirms(self) -> None:
        """Each call has waited for its own."""

    def unconfirmed(self) -> int:
        return 0


class Core(_Peer):
    """RedisChannelLayer."""

    def __init__(self, config: Mapping[str, Any], hosts: Sequence[str]) -> None:
        settings = {name: config[name] for name in SETTINGS if name in config}
        super().__init__(RedisChannelLayer(hosts=list(hosts), **settings), config, hosts)

    async def locate(self, name: str) -> str:
        """A normal channel is on all hosts in turn: empty, anywhere."""
        is_normal = "!" not in name and name.startswith("queue")
        return "" if is_normal and self._count > 1 else await super().locate(name)

    async def close(self) -> None:
        await self._layer.close_pools()


class PubSub(_Peer):
    """RedisPubSubChannelLayer."""

    def __init__(self, config: Mapping[str, Any], hosts: Sequence[str]) -> None:
        layer = RedisPubSubChannelLayer(hosts=list(hosts), prefix=config["prefix"])
        super().__init__(layer, config, hosts)

    async def close(self) -> None:
        await self._layer.flush()  # which closes connections, and nothing else


async def _translated(operation: Awaitable[T]) -> T:
    try:
        return await operation
    except ChannelFull as error:
        raise PeerFull(str(error)) from error
    except RuntimeError as error:
        if "in-process" not in str(error):
            raise
        raise PeerRefused(str(error)) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise PeerFailed(repr(error)) from error
