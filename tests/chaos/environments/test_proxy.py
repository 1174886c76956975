"""The proxy's faults that only the chaos suite uses, seen by plain sockets to a real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from chaos.environments.proxy import TcpProxy
from cluster_layer.embedded import RedisServer
from tests.support.waiting import eventually


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


def connected(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10.0)


def ask(client: socket.socket, command: bytes, answer: bytes) -> None:
    client.sendall(command + b"\r\n")
    got = b""
    while len(got) < len(answer):
        got += client.recv(4096)
    assert got == answer


def test_a_halved_request_is_not_executed(proxy: TcpProxy, redis_server: RedisServer) -> None:
    """The server sees half of it and the end; the client a reset; the next one passes."""
    with closing(connected(proxy)) as client:
        ask(client, b"SET name before", b"+OK\r\n")
        proxy.halve_requests(1)
        client.sendall(b"SET name after\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(4096)
    assert proxy.requests_halved == 1
    with closing(connected(proxy)) as client:
        ask(client, b"GET name", b"$6\r\nbefore\r\n")


def test_sliced_bytes_arrive_whole_and_in_order(proxy: TcpProxy) -> None:
    """Whatever the size of the pieces."""
    proxy.slice_bytes(3)
    text = bytes(range(ord("a"), ord("z") + 1)) * 40
    with closing(connected(proxy)) as client:
        ask(client, b"ECHO " + text, b"$%d\r\n%b\r\n" % (len(text), text))
        assert proxy.reads_disturbed >= 2
        proxy.heal()
        disturbed = proxy.reads_disturbed
        ask(client, b"PING", b"+PONG\r\n")
        assert proxy.reads_disturbed == disturbed


def test_a_delay_with_jitter_is_at_least_the_delay(proxy: TcpProxy) -> None:
    """Each way."""
    proxy.delay(0.05, jitter_s=0.01)
    with closing(connected(proxy)) as client:
        began_s = time.monotonic()
        ask(client, b"PING", b"+PONG\r\n")
        assert time.monotonic() - began_s >= 0.1
        assert proxy.reads_disturbed == 2


def test_the_address_can_move_to_another_server(proxy: TcpProxy) -> None:
    """Connections to the old one are reset."""
    with RedisServer() as other, closing(connected(proxy)) as old:
        ask(old, b"SET name old", b"+OK\r\n")
        proxy.retarget("127.0.0.1", other.port)
        with pytest.raises(ConnectionResetError):
            old.recv(4096)
        with closing(connected(proxy)) as new:
            ask(new, b"GET name", b"$-1\r\n")


def test_what_is_cut_is_counted(proxy: TcpProxy) -> None:
    """By connection."""
    with closing(connected(proxy)) as one, closing(connected(proxy)) as other:
        ask(one, b"PING", b"+PONG\r\n")
        ask(other, b"PING", b"+PONG\r\n")
        proxy.cut()
        assert proxy.connections_cut == 2
        eventually(lambda: proxy.connections_open == 0)
