"""The proxy's faults, seen by plain sockets to a real redis-server."""

import gc
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from cluster_layer.embedded import RedisServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually


class Client:
    """One connection that speaks inline commands."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10.0)

    def send(self, command: str) -> None:
        self.socket.sendall(command.encode() + b"\r\n")

    def ask(self, command: str) -> bytes:
        self.send(command)
        return self.socket.recv(4096)


Connect = Callable[..., Client]


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: TcpProxy) -> Iterator[Connect]:
    """Opens connections through the proxy, or to another port; all are closed at the end."""
    with ExitStack() as opened:

        def open_one(port: int | None = None) -> Client:
            client = Client(proxy.port if port is None else port)
            opened.callback(client.socket.close)
            return client

        yield open_one


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


@pytest.fixture
def direct(connect: Connect, redis_server: RedisServer) -> Client:
    """Past the proxy."""
    return connect(redis_server.port)


def assert_reset(client: Client) -> None:
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)


def test_it_forwards_and_counts(proxy: TcpProxy, client: Client) -> None:
    """Without a fault every byte passes in both directions, and is counted."""
    assert client.ask("PING") == b"+PONG\r\n"
    assert (proxy.connections_accepted, proxy.connections_open) == (1, 1)
    assert (proxy.bytes_to_server, proxy.bytes_to_client) == (6, 7)


def test_a_closed_client_is_closed_upstream(proxy: TcpProxy, client: Client) -> None:
    """A connection's orderly end passes through."""
    assert client.ask("PING") == b"+PONG\r\n"
    client.socket.close()
    eventually(lambda: proxy.connections_open == 0)


def test_cut_resets_what_is_open(proxy: TcpProxy, client: Client, connect: Connect) -> None:
    """A cut is a reset for open connections; new ones are welcome."""
    client.ask("PING")
    proxy.cut()
    assert_reset(client)
    assert connect().ask("PING") == b"+PONG\r\n"


def test_refuse_keeps_what_is_open(proxy: TcpProxy, client: Client, connect: Connect) -> None:
    """Refusing turns away new connections only, and heal() takes it back."""
    client.ask("PING")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert client.ask("PING") == b"+PONG\r\n"
    proxy.heal()
    assert connect().ask("PING") == b"+PONG\r\n"


def test_refuse_after_accepting(proxy: TcpProxy, connect: Connect) -> None:
    """With accept_first a new connection is accepted, then closed before it says anything."""
    proxy.refuse(accept_first=True)
    assert connect().socket.recv(1) == b""


def test_held_requests_arrive_after_heal(proxy: TcpProxy, client: Client, direct: Client) -> None:
    """A black hole holds requests on an open connection until it is healed."""
    client.ask("PING")
    proxy.blackhole("requests")
    client.send("SET key value")
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    assert direct.ask("EXISTS key") == b":0\r\n"
    client.socket.settimeout(10)
    proxy.heal()
    assert client.socket.recv(4096) == b"+OK\r\n"


def test_held_replies_leave_requests_alone(proxy: TcpProxy, client: Client, direct: Client) -> None:
    """With replies held the upstream still executes what it is sent."""
    proxy.blackhole("replies")
    client.send("SET key value")
    eventually(lambda: direct.ask("EXISTS key") == b":1\r\n")
    proxy.heal()
    assert client.socket.recv(4096) == b"+OK\r\n"


def test_swallowed_bytes_cost_the_connection(
    proxy: TcpProxy, client: Client, direct: Client
) -> None:
    """Swallowed bytes are lost for good, so healing resets the connection that lost them."""
    client.ask("PING")
    proxy.blackhole("requests", swallow=True)
    client.send("SET key value")
    eventually(lambda: any(link.damaged for link in proxy._links))
    proxy.heal()
    assert_reset(client)
    assert direct.ask("EXISTS key") == b":0\r\n"


def test_a_connection_in_a_black_hole_can_be_cut(proxy: TcpProxy, client: Client) -> None:
    """A cut ends connections whose bytes are held, too."""
    proxy.blackhole()
    client.send("PING")
    eventually(lambda: proxy.connections_open == 1)
    proxy.cut()
    assert_reset(client)
    eventually(lambda: proxy.connections_open == 0)


def test_a_lost_reply_was_executed(
    proxy: TcpProxy, client: Client, direct: Client, connect: Connect
) -> None:
    """When the client sees the reset, the request has been executed once."""
    proxy.lose_next_reply(b"INCR")
    assert client.ask("PING") == b"+PONG\r\n"
    client.send("INCR key")
    assert_reset(client)
    assert direct.ask("GET key") == b"$1\r\n1\r\n"
    assert proxy.replies_lost == 1
    assert connect().ask("INCR key") == b":2\r\n"


def test_a_match_may_span_two_writes(proxy: TcpProxy, client: Client, direct: Client) -> None:
    """The bytes that are looked for may arrive in pieces."""
    proxy.lose_next_reply(b"INCR")
    client.socket.sendall(b"IN")
    eventually(lambda: proxy.bytes_to_server == 2)
    client.socket.sendall(b"CR key\r\n")
    assert_reset(client)
    assert direct.ask("GET key") == b"$1\r\n1\r\n"


def test_every_reply_of_several_can_be_lost(
    proxy: TcpProxy, direct: Client, connect: Connect
) -> None:
    """A count loses that many replies, each on its own connection."""
    proxy.lose_next_reply(b"INCR", count=3)
    for _ in range(3):
        client = connect()
        client.send("INCR key")
        assert_reset(client)
    assert connect().ask("INCR key") == b":4\r\n"


def test_delay(proxy: TcpProxy, client: Client) -> None:
    """A delay makes each direction that much slower."""
    client.ask("PING")
    proxy.delay(0.1)
    started = time.monotonic()
    assert client.ask("PING") == b"+PONG\r\n"
    assert time.monotonic() - started >= 0.2


def test_an_upstream_that_is_gone(
    redis_server: RedisServer, proxy: TcpProxy, connect: Connect
) -> None:
    """Nothing listens upstream: the client's connection is reset."""
    redis_server.kill()
    with pytest.raises(ConnectionResetError):
        connect().socket.recv(1)


def test_a_killed_upstream_ends_its_connections(
    redis_server: RedisServer, proxy: TcpProxy, client: Client
) -> None:
    """The upstream's death reaches clients that are connected."""
    client.ask("PING")
    redis_server.kill()
    with suppress(ConnectionResetError):
        assert client.socket.recv(1) == b""
    eventually(lambda: proxy.connections_open == 0)


def test_a_close_amid_connecting_leaves_nothing_open(redis_server: RedisServer) -> None:
    """Whatever a connection has come to when the proxy is closed, its sockets are closed, too."""
    for _ in range(30):
        proxy = TcpProxy("127.0.0.1", redis_server.port)
        clients = [Client(proxy.port) for _ in range(5)]
        proxy.close()
        for client in clients:
            client.socket.close()
    # A socket that was left open is told here, as a warning, and so as an error.
    gc.collect()
