"""One connection to a real shard: what did not happen, what may have, and when it is given up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest

from cluster_layer import connection as module
from cluster_layer.connection import Connection
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.session import CommandRefused
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

TIMEOUT_S = 5.0
SHORT_S = 0.3


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Connection]:
    endpoint = Endpoint.from_url(url)
    connection = await Connection.open(
        endpoint, "shard", connect_timeout_s=TIMEOUT_S, timeout_s=timeout_s
    )
    try:
        yield connection
    finally:
        connection.close()


async def asked_directly(server: RedisServer, *command: Any) -> Any:
    async with opened(server.url) as connection:
        return await connection.execute(command)


async def clients_of(server: RedisServer) -> int:
    clients: bytes = await asked_directly(server, "CLIENT", "LIST")
    return clients.count(b"\n") - 1  # the one that asks


class CountingTransport:
    """Counts the writes that pass."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()


async def test_replies_come_as_they_were_asked_for(redis_server: RedisServer) -> None:
    """One command gives its reply, several give a list, and calls may overlap."""
    async with opened(redis_server.url) as connection:
        calls = [connection.execute(("ECHO", str(number))) for number in range(100)]
        pair = connection.execute(("SET", "k", 1), ("GET", "k"))
        *echoes, both = await asyncio.gather(*calls, pair)
        assert echoes == [str(number).encode() for number in range(100)]
        assert both == [b"OK", b"1"]


async def test_the_calls_of_one_tick_share_a_write(redis_server: RedisServer) -> None:
    """A thousand calls at once are one call of the operating system."""
    async with opened(redis_server.url) as connection:
        counting = CountingTransport(connection._transport)
        connection._transport = counting  # type: ignore[assignment]
        await asyncio.gather(*(connection.execute(("PING",)) for _ in range(1000)))
        assert counting.writes == 1


async def test_a_large_value_passes_both_ways(redis_server: RedisServer) -> None:
    """Also what exceeds the buffers of the socket by far; later calls wait unsent meanwhile."""
    large = b"x" * 50_000_000
    async with opened(redis_server.url) as connection:
        first = connection.call((("SET", "k", large),))
        await asyncio.sleep(0)
        second = connection.call((("GET", "k"),))
        assert await first == b"OK"
        assert await second == large


async def test_an_error_reply_is_a_refusal(redis_server: RedisServer) -> None:
    """The shard did not execute the command: definite, and the connection goes on."""
    async with opened(redis_server.url) as connection:
        with pytest.raises(CommandRefused) as caught:
            await connection.execute(("INCR",))
        assert caught.value.definite
        assert "wrong number of arguments" in caught.value.reason
        reply = await connection.call((("NONSENSE",),))
        assert isinstance(reply, hiredis.ReplyError)
        assert await connection.execute(("PING",)) == b"PONG"


async def test_an_incarnation_is_the_same_for_every_client(redis_server: RedisServer) -> None:
    """Clients agree on it without talking, and a restart changes it."""
    async with opened(redis_server.url) as one, opened(redis_server.url) as other:
        before = one.incarnation
        assert before == other.incarnation
        assert one.client_id != other.client_id
    redis_server.restart()
    async with opened(redis_server.url) as connection:
        assert connection.incarnation != before


async def test_the_shard_s_clock_is_known_and_never_ahead(proxy: TcpProxy) -> None:
    """What we take for the shard's time is early by at most the round trip."""
    proxy.delay(0.1, "replies")
    async with opened(proxy.url) as connection:
        proxy.delay(0.0, "replies")
        for _ in range(3):
            before = connection.shard_time_ms()
            seconds, microseconds = await connection.execute(("TIME",))
            shard_ms = int(seconds) * 1000 + int(microseconds) / 1000
            assert shard_ms - 1000 < before <= shard_ms


async def test_a_replica_is_no_shard(redis_server: RedisServer) -> None:
    """Nothing is read from or written to a server that follows another one."""
    with RedisServer(options={"replicaof": f"127.0.0.1 {redis_server.port}"}) as replica:
        with pytest.raises(ShardUnavailable, match="it is a replica"):
            async with opened(replica.url):
                pass
        await eventually_async(lambda: _none_left(replica))


async def _none_left(server: RedisServer) -> bool:
    """Whether nobody but us (and a primary) is connected to a replica."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"CLIENT LIST TYPE normal\r\n")
    header = await reader.readline()
    clients = await reader.readexactly(int(header[1:]))
    writer.close()
    await writer.wait_closed()
    return clients.count(b"\n") == 1


async def test_nothing_listens(redis_server: RedisServer) -> None:
    """A server that is down is unavailable, at once and definitely."""
    redis_server.kill()
    with pytest.raises(ShardUnavailable) as caught:
        async with opened(redis_server.url):
            pass
    assert caught.value.definite


async def test_connecting_has_a_deadline(redis_server: RedisServer) -> None:
    """A server that accepts and says nothing, also to the login, is given up."""
    redis_server.pause()
    endpoint = Endpoint.from_url(redis_server.url.replace("//", "//user:pw@"))
    with pytest.raises(ShardUnavailable, match=r"no connection within 0\.3 s"):
        await Connection.open(endpoint, "shard", connect_timeout_s=SHORT_S, timeout_s=TIMEOUT_S)
    redis_server.resume()


async def test_a_wrong_password_is_an_error_without_it() -> None:
    """The login's refusal is told, the password is not."""
    with (
        RedisServer(password="right") as server,
        pytest.raises(ShardUnavailable) as caught,
    ):
        async with opened(server.url.replace("right", "wrong-secret")):
            pass
    assert "wrong-secret" not in str(caught.value)


async def test_calls_that_were_never_written_did_not_happen(redis_server: RedisServer) -> None:
    """Closed in the same tick: definite, and the shard has seen nothing."""
    async with opened(redis_server.url) as connection:
        call = connection.call((("SET", "k", 1),))
        connection.close("for a test")
        with pytest.raises(ShardUnavailable, match="for a test") as caught:
            await call
        assert caught.value.definite
    assert await asked_directly(redis_server, "EXISTS", "k") == 0


async def test_calls_on_a_lost_connection_did_not_happen(redis_server: RedisServer) -> None:
    """They fail at once, with the reason for which it was lost."""
    async with opened(redis_server.url) as connection:
        connection.close("for a test")
        with pytest.raises(ShardUnavailable, match="for a test"):
            await connection.execute(("SET", "k", 1))


async def test_a_lost_reply_leaves_the_outcome_unknown(
    redis_server: RedisServer, proxy: TcpProxy
) -> None:
    """The command was executed once, was not sent again, and the caller is told that it may be."""
    async with opened(proxy.url) as connection:
        proxy.lose_next_reply(b"INCR")
        with pytest.raises(DeliveryUnknown) as caught:
            await connection.execute(("INCR", "k"))
        assert not caught.value.definite
        assert connection.lost is not None
    assert await asked_directly(redis_server, "GET", "k") == b"1"


async def test_an_overdue_reply_breaks_the_connection(redis_server: RedisServer) -> None:
    """Everything in flight is unknown, within the deadline, and what comes after is definite."""
    async with opened(redis_server.url, SHORT_S) as connection:
        redis_server.pause()
        calls = [connection.execute(("PING",)) for _ in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DeliveryUnknown] * 3
        assert connection.lost == "no answer within 0.3 s"
        with pytest.raises(ShardUnavailable):
            await connection.execute(("PING",))
        redis_server.resume()


async def test_a_longer_deadline_is_for_one_call(redis_server: RedisServer) -> None:
    """A blocking read may take longer than other calls without breaking the connection."""
    async with opened(redis_server.url, SHORT_S) as connection:
        reply = await connection.execute(("BLPOP", "k", "0.6"), timeout_s=TIMEOUT_S)
        assert reply is None
        assert connection.lost is None


async def test_a_cut_is_noticed_without_a_call(proxy: TcpProxy) -> None:
    """Whoever owns the connection hears of it, once."""
    async with opened(proxy.url) as connection:
        losses: list[str | None] = []
        connection.on_lost = lambda: losses.append(connection.lost)
        assert await connection.stays(0.01)
        proxy.cut()
        assert not await connection.stays(TIMEOUT_S)
        connection.close("again")
        assert len(losses) == 1
        assert losses[0] is not None
        assert losses[0].startswith("connection")


async def test_a_cancelled_call_disturbs_no_other(redis_server: RedisServer) -> None:
    """Its reply is dropped, and those behind it find their own."""
    async with opened(redis_server.url) as connection:
        first = asyncio.ensure_future(connection.execute(("ECHO", "first"), ("ECHO", "more")))
        second = asyncio.ensure_future(connection.execute(("ECHO", "second")))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"second"


async def test_an_answer_that_is_no_redis_breaks_the_connection(redis_server: RedisServer) -> None:
    """A connection that is out of step is never used again."""
    async with opened(redis_server.url) as connection:
        call = connection.call((("PING",),))
        await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 400 Bad Request\r\n")
        with pytest.raises(DeliveryUnknown, match="Redis's protocol"):
            await call


async def test_a_reply_that_nobody_asked_for_breaks_the_connection(
    redis_server: RedisServer,
) -> None:
    """Otherwise every later reply would go to the wrong call."""
    async with opened(redis_server.url) as connection:
        connection.data_received(b"+OK\r\n")
        assert connection.lost is not None


async def test_what_waits_on_a_connection_is_bounded(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that number calls fail at once and definitely, and the others are answered."""
    monkeypatch.setattr(module, "MAX_PENDING", 10)
    async with opened(redis_server.url) as connection:
        calls = [connection.call((("PING",),)) for _ in range(12)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[:10] == [b"PONG"] * 10
        assert [type(outcome) for outcome in outcomes[10:]] == [ShardUnavailable] * 2


async def test_a_connection_leaves_nothing_behind(redis_server: RedisServer) -> None:
    """Closed, refused or cancelled while it opens: the socket is closed in the end."""
    async with opened(redis_server.url):
        assert await clients_of(redis_server) == 1
    opening = asyncio.ensure_future(opened(redis_server.url).__aenter__())
    for _ in range(3):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)

    async def nobody() -> bool:
        return await clients_of(redis_server) == 0

    await eventually_async(nobody)
