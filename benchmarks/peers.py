"""The layers under test, each built as its own documentation advises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from benchmarks.model import OURS
from benchmarks.servers import Addresses, Servers, start_nats, start_redis
from cluster_layer import ClusterChannelLayer, envelope
from cluster_layer.connection import Connection
from cluster_layer.endpoints import Endpoint
from cluster_layer.keys import Keys
from cluster_layer.names import inbox_name
from cluster_layer.routing import fixed_cluster
from cluster_layer.scripts import INBOX_APPEND

Message = dict[str, Any]

# A chat line, as a consumer would send it.
MESSAGE: Message = {"type": "chat.message", "text": "the quick brown fox jumps", "room": 4711}

# Nothing is to be refused: what is measured is the way of a message, not the edge of a queue.
CAPACITY = 1_000_000
EPOCH = 1  # of every list of hosts
EXPIRY_MS = 60_000
TIMEOUT_S = 30.0
MAX_CONNECTIONS = 10_000
MESSAGE_SIZE_LIMIT = 2_000_000


class Sender(Protocol):
    """The least that a layer under test can do."""

    async def send(self, channel: str, message: Message) -> None: ...


class Layer(Sender, Protocol):
    """What all layers have in common."""

    async def receive(self, channel: str) -> Message: ...
    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: Message) -> None: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """How to set up one layer under test.

    `make` opens nothing; `open` says that the running loop lives; `settle` returns when everything
    that was sent has left this process.
    """

    name: str
    start: Callable[[int], AbstractContextManager[Servers]]
    make: Callable[[Addresses], Any]
    open: Callable[[Any], Awaitable[None]]
    settle: Callable[[Any], Awaitable[None]]


class Bare:
    """The command that a send costs, over our connection class; nothing of the layer around it."""

    def __init__(self, addresses: Addresses) -> None:
        self._url = addresses.redis[0]
        self._command: tuple[bytes | str | int, ...] = ()
        self._connection: Connection | None = None

    async def open(self) -> None:
        endpoint = Endpoint.from_url(self._url)
        self._connection = await Connection.open(
            endpoint, endpoint.id, connect_timeout_s=TIMEOUT_S, timeout_s=TIMEOUT_S
        )
        await self._connection.execute(("SCRIPT", "LOAD", INBOX_APPEND.text))

    async def send(self, channel: str, message: Message) -> None:
        assert self._connection is not None
        if not self._command:
            cluster = fixed_cluster([Endpoint.from_url(self._url).id])
            life = self._connection.incarnation
            self._command = append_command(cluster, life, channel, message)
            await self._connection.execute(serve_command(cluster, life))
        await self._connection.execute(self._command)

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection


class Empty:
    """Does nothing: what the caller's own machinery costs."""

    def __init__(self, addresses: Addresses) -> None:
        del addresses

    async def send(self, channel: str, message: Message) -> None:
        del channel, message


def serve_command(cluster: str, incarnation: str) -> tuple[bytes | str | int, ...]:
    """The command after which a shard takes what `append_command` says."""
    return ("SET", Keys("asgi", cluster, incarnation, 0).cluster.epoch, EPOCH)


def append_command(
    cluster: str, incarnation: str, channel: str, message: Message
) -> tuple[bytes | str | int, ...]:
    """The command that the layer writes for one send to a process-specific channel."""
    body = envelope.encode_body(message, MESSAGE_SIZE_LIMIT)
    data = envelope.encode(envelope.MESSAGE, EXPIRY_MS, channel, None, body)
    keys = Keys("asgi", cluster, incarnation, 0)
    named = (keys.cluster.epoch, keys.inbox(inbox_name(channel)), keys.entries)
    never_ms = 1 << 52
    return ("EVALSHA", INBOX_APPEND.sha, 3, *named, never_ms, EPOCH, CAPACITY, EXPIRY_MS, data)


def _make_cluster(addresses: Addresses) -> Any:
    return ClusterChannelLayer(hosts=list(addresses.redis), capacity=CAPACITY)


def _make_unconfirmed(addresses: Addresses) -> Any:
    return ClusterChannelLayer(hosts=list(addresses.redis), capacity=CAPACITY, confirm=False)


def _hosts(addresses: Addresses) -> list[dict[str, Any]]:
    # redis-py's defaults would end an idle receive() of channels_redis after 5 s, and refuse the
    # 101st call in flight.
    options = {"socket_timeout": TIMEOUT_S, "max_connections": MAX_CONNECTIONS}
    return [{"address": url, **options} for url in addresses.redis]


def _make_core(addresses: Addresses) -> Any:
    from channels_redis.core import RedisChannelLayer

    return RedisChannelLayer(hosts=_hosts(addresses), capacity=CAPACITY)


def _make_pubsub(addresses: Addresses) -> Any:
    from channels_redis.pubsub import RedisPubSubChannelLayer

    return RedisPubSubChannelLayer(hosts=_hosts(addresses))


def _make_nats(addresses: Addresses) -> Any:
    from channels_nats import NatsChannelLayer  # type: ignore[import-untyped]

    return NatsChannelLayer(servers=[addresses.nats], capacity=CAPACITY)


async def _nothing(layer: Any) -> None:
    del layer


async def _open(layer: Any) -> None:
    await layer.open()


async def _confirmed(layer: Any) -> None:
    if isinstance(layer, ClusterChannelLayer):  # else it is what is below it, alone
        await layer.wait_for_confirms()


async def _flush_nats(layer: Any) -> None:
    # A publish only fills a buffer; there is no public way to wait until it has left.
    client = await layer._client()  # noqa: SLF001
    await client.flush()


def _nats(_shards: int) -> AbstractContextManager[Servers]:
    return start_nats()


_redis = partial(Peer, start=start_redis, open=_nothing, settle=_nothing)

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, start_redis, _make_cluster, _open, _confirmed),
        _redis("core", make=_make_core),
        _redis("pubsub", make=_make_pubsub),
        Peer("nats", _nats, _make_nats, _nothing, _flush_nats),
        Peer("bare", start_redis, Bare, _open, _nothing),
        _redis("empty", make=Empty),
        # Not a layer: rows that know it start the program themselves.
        _redis("redis-benchmark", make=Empty),
    )
}

LAYERS = (OURS, "core", "pubsub", "nats")


async def make_layer(peer: str, addresses: Addresses, *, confirm: bool = True) -> Layer:
    """A layer that the running loop owns; `confirm` is for ours, nobody else has it."""
    chosen = PEERS[peer]
    layer = chosen.make(addresses) if confirm or peer != OURS else _make_unconfirmed(addresses)
    await chosen.open(layer)
    return cast(Layer, layer)
