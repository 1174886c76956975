"""How a connection to a shard comes to be: redis-py opens it, then it is ours.

redis-py knows URLs, TLS, ACL users, unix sockets and Sentinels. It has no public way to hand a
connection over; the private names in here are the same in 5.0 to 8.1, which the tests run against.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import RedisError

from cluster_layer.errors import ShardUnavailable
from cluster_layer.session import NothingListens

if TYPE_CHECKING:
    from cluster_layer.endpoints import Endpoint


class _Detached:
    """Stands in for the transport in redis-py's stream writer once the transport is ours."""

    def is_closing(self) -> bool:
        return True


async def open_transport(
    endpoint: Endpoint, shard: str, connect_timeout_s: float
) -> asyncio.Transport:
    """A transport that is connected and logged in, without its stream. ShardUnavailable."""
    raw: Any = endpoint.new_connection(connect_timeout_s)
    try:
        async with asyncio.timeout(connect_timeout_s):
            await raw.connect()
    except (RedisError, OSError, TimeoutError) as error:
        await raw.disconnect(nowait=True)
        raise _refusal(shard, error, connect_timeout_s) from None
    except BaseException:
        await raw.disconnect(nowait=True)
        raise
    # Both objects close the transport when they are collected.
    writer = raw._writer  # noqa: SLF001
    transport = cast(asyncio.Transport, writer.transport)
    writer._transport = _Detached()  # noqa: SLF001
    raw._reader = raw._writer = None  # noqa: SLF001
    return transport


def open_socket(endpoint: Endpoint, shard: str, connect_timeout_s: float) -> socket.socket:
    """A socket that is connected and logged in; blocks. ShardUnavailable.

    Each step of it (connect, log in, choose the database) may take `connect_timeout_s`.
    """
    raw: Any = endpoint.new_blocking_connection(connect_timeout_s)
    try:
        raw.connect()
    except (RedisError, OSError) as error:
        raw.disconnect()
        raise _refusal(shard, error, connect_timeout_s) from None
    except BaseException:
        raw.disconnect()
        raise
    connected = cast(socket.socket, raw._sock)  # noqa: SLF001
    raw._sock = None  # noqa: SLF001 - it closes the socket when it is collected
    return connected


def _refusal(shard: str, error: Exception, connect_timeout_s: float) -> ShardUnavailable:
    reason = str(error) or f"no connection within {connect_timeout_s:g} s"
    kind = NothingListens if _was_refused(error) else ShardUnavailable
    return kind(shard, reason)


def _was_refused(error: BaseException | None) -> bool:
    """Whether the host said that nothing listens there; redis-py wraps the system's error."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__context__
    return False
