"""Seats: many threads, few connections, and no thread that waits for ever."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from cluster_layer import seats
from cluster_layer.blocking import finish
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import endpoints_of
from cluster_layer.errors import ShardUnavailable
from cluster_layer.marks import Trail
from cluster_layer.running import LinkSettings
from cluster_layer.seats import MAX_SEATS, Seats
from cluster_layer.topologies import fixed_topologies
from cluster_layer.writer import TrailCell, Writer

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
HURRIED = LinkSettings(prefix="test", timeout_s=0.1, connect_timeout_s=5.0)


def _seats(server: RedisServer, settings: LinkSettings = SETTINGS) -> Seats:
    counters = Counters()
    topologies = fixed_topologies(endpoints_of([server.url]))
    return Seats(
        topologies,
        settings,
        counters,
        lambda links: Writer(links, counters, None, lambda _name: 1_000_000, 60_000),
    )


def _send(made: Seats, count: int = 1) -> None:
    for _ in range(count):
        with made.seat("orders") as seat:
            finish(seat.writer.send("orders", b"\x80", TrailCell(Trail())))


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=redis_server.port) as connection:
        yield connection


def test_one_thread_after_the_other_shares_a_connection(
    redis_server: RedisServer, client: Any
) -> None:
    """A server with a thread per request opens no connection per request."""
    made = _seats(redis_server)
    for _ in range(20):
        thread = threading.Thread(target=_send, args=(made, 5))
        thread.start()
        thread.join()
    assert len(client.client_list()) == 2
    made.close()


def test_threads_at_the_same_time_lose_and_mix_up_nothing(
    redis_server: RedisServer, client: Any
) -> None:
    """Every call gets its own answer, and connections stay below their bound."""
    made = _seats(redis_server)
    with ThreadPoolExecutor(2 * MAX_SEATS) as threads:
        list(threads.map(lambda _: _send(made, 20), range(2 * MAX_SEATS)))
    assert client.llen(next(client.scan_iter("test:*:q:orders"))) == 40 * MAX_SEATS
    assert len(client.client_list()) <= MAX_SEATS + 1
    made.close()


def test_who_gets_no_seat_in_time_is_told_that_nothing_was_sent(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Definite, after the timeout; a seat that is given back serves the next."""
    monkeypatch.setattr(seats, "MAX_SEATS", 1)
    made = _seats(redis_server, HURRIED)
    with made.seat("orders"), pytest.raises(ShardUnavailable, match="under way"):
        _send(made)
    with made.seat("orders"):
        pass
    made.close()


def test_closing_disconnects_and_so_does_a_seat_that_comes_back_later(
    redis_server: RedisServer, client: Any
) -> None:
    """A call that is under way is not disturbed."""
    made = _seats(redis_server)
    with made.seat("orders") as seat:
        finish(seat.writer.send("orders", b"\x80", TrailCell(Trail())))
        assert made.connected()
        made.close()
        finish(seat.writer.send("orders", b"\x80", TrailCell(Trail())))
    assert not made.connected()
