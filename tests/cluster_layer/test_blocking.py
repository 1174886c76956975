"""Blocking links to real shards: the rules of `running.py` without an event loop."""

import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest
import redis

from cluster_layer.batching import Command
from cluster_layer.blocking import BlockingLink, Outage, finish
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.running import HEARTBEAT_S, LinkSettings
from cluster_layer.scripts import Script
from cluster_layer.topologies import fixed_topologies
from tests.support.parts import EPOCH
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
HURRIED = LinkSettings(prefix="test", timeout_s=0.5, connect_timeout_s=0.5)

# Counts its executions, and keeps the fence as all of ours do.
_TEXT = """
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then
    return redis.error_reply('LATE')
end
return redis.call('INCR', KEYS[2])
"""


class Counting:
    """A link, a script that is loaded on its shard, and how often that has been executed."""

    def __init__(self, server: RedisServer) -> None:
        self.shard: Any = redis.Redis.from_url(server.url, protocol=2)
        self.script = Script(_TEXT, self.shard.script_load(_TEXT))
        self.counters = Counters()
        self.outages: dict[str, Outage] = {}
        self._links: list[BlockingLink] = []

    def link(self, url: str, settings: LinkSettings = SETTINGS) -> BlockingLink:
        endpoint = Endpoint.from_url(url)
        topologies = fixed_topologies([endpoint])
        link = BlockingLink("shard", endpoint, settings, self.counters, topologies, self.outages)
        self._links.append(link)
        return link

    def run(self, link: BlockingLink) -> Any:
        link.rouse()
        return finish(link.run(self.script, EPOCH, self._build))

    def executions(self) -> int:
        return sum(int(self.shard.get(key)) for key in self.shard.scan_iter("*:q:counter"))

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.shard.close()

    def _build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("counter"),), ()


@pytest.fixture
def counting(redis_server: RedisServer) -> Iterator[Counting]:
    counting = Counting(redis_server)
    yield counting
    counting.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


def test_a_coroutine_that_needs_a_loop_is_a_defect() -> None:
    """Nothing that is run without a loop may wait for one."""

    class Suspended:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def waits() -> None:
        await Suspended()

    with pytest.raises(RuntimeError, match="event loop"):
        finish(waits())


def test_a_script_runs_on_the_keys_of_this_life(
    redis_server: RedisServer, counting: Counting
) -> None:
    """One connection serves one call after the other."""
    link = counting.link(redis_server.url)
    assert [counting.run(link) for _ in range(3)] == [1, 2, 3]
    key = f"test:{link.keys.incarnation}:q:counter"
    assert counting.shard.keys("test:*") == [key.encode()]
    assert len(counting.shard.client_list()) == 2


def test_a_forgotten_script_is_loaded_again(redis_server: RedisServer, counting: Counting) -> None:
    """NOSCRIPT means not executed: after the remedy the call is made once more."""
    link = counting.link(redis_server.url)
    counting.run(link)
    counting.shard.script_flush()
    assert counting.run(link) == 2


def test_a_wrong_idea_of_the_shard_s_clock_is_corrected(
    redis_server: RedisServer, counting: Counting
) -> None:
    """Refused by the fence by our own error: the clock is looked at, and it is tried again."""
    link = counting.link(redis_server.url)
    counting.run(link)
    assert link.connection is not None
    link.connection._clock_offset_ms -= 3_600_000
    assert counting.run(link) == 2


def test_a_lost_reply_is_never_sent_again(
    redis_server: RedisServer, proxy: TcpProxy, counting: Counting
) -> None:
    """It was executed once, its outcome is unknown to the caller, and the next call works."""
    link = counting.link(proxy.url)
    counting.run(link)
    proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(DeliveryUnknown):
        counting.run(link)
    assert counting.executions() == 2
    assert counting.run(link) == 3
    assert counting.counters.shards["shard"].unknown == 1
    assert counting.counters.shards["shard"].reconnects == 1


def test_half_a_request_is_unknown_and_not_repeated(proxy: TcpProxy, counting: Counting) -> None:
    """Bytes have left: the caller is not told that nothing happened."""
    link = counting.link(proxy.url)
    counting.run(link)
    proxy.halve_requests(1)
    with pytest.raises(DeliveryUnknown):
        counting.run(link)
    assert counting.executions() == 1
    assert counting.run(link) == 2


def test_an_unknown_outcome_is_final_when_it_is_told(
    redis_server: RedisServer, counting: Counting
) -> None:
    """What a paused shard had not executed when the caller was told, it never executes."""
    link = counting.link(redis_server.url, HURRIED)
    counting.run(link)
    redis_server.pause()
    with pytest.raises(DeliveryUnknown):
        counting.run(link)
    redis_server.resume()

    def served() -> bool:
        try:
            counting.run(link)
        except ShardUnavailable:
            return False
        return True

    eventually(served)
    assert counting.executions() == 2


def test_a_cut_between_calls_costs_no_error(proxy: TcpProxy, counting: Counting) -> None:
    """The end of an idle connection is seen before anything is written to it."""
    link = counting.link(proxy.url)
    counting.run(link)
    proxy.cut()
    eventually(lambda: link.connection and link.connection._poll.poll(0))
    assert counting.run(link) == 2
    assert counting.counters.shards["shard"].unknown == 0


def test_a_dead_shard_is_unavailable_at_once(redis_server: RedisServer, counting: Counting) -> None:
    """Definite, without the deadline's wait; all seats know it, and when it is back it serves."""
    link, other = counting.link(redis_server.url), counting.link(redis_server.url)
    counting.run(link)
    redis_server.kill()
    before = time.monotonic()
    for _ in range(20):
        for each in (link, other):
            with pytest.raises(ShardUnavailable) as caught:
                counting.run(each)
            assert caught.value.definite
    assert time.monotonic() - before < SETTINGS.timeout_s / 2
    redis_server.start()
    counting.shard.script_load(_TEXT)

    def served() -> bool:
        try:
            return bool(counting.run(link))
        except ShardUnavailable:
            return False

    eventually(served)
    assert "shard" not in counting.outages


def test_a_shard_that_accepts_and_is_silent_is_unavailable(
    proxy: TcpProxy, counting: Counting
) -> None:
    """Connecting has a deadline, whatever step of it hangs; nothing was executed."""
    proxy.blackhole()
    link = counting.link(proxy.url, HURRIED)
    before = time.monotonic()
    with pytest.raises(ShardUnavailable):
        counting.run(link)
    assert time.monotonic() - before < 20 * HURRIED.timeout_s
    assert counting.executions() == 0


def test_answers_in_small_pieces_are_put_together(proxy: TcpProxy, counting: Counting) -> None:
    """A reply may come in any number of packets."""
    proxy.slice_bytes(3)
    link = counting.link(proxy.url)
    assert [counting.run(link) for _ in range(3)] == [1, 2, 3]


def test_a_restarted_shard_has_new_keys(redis_server: RedisServer, counting: Counting) -> None:
    """Whatever the last life of the server left behind is not written to any more."""
    link = counting.link(redis_server.url)
    counting.run(link)
    before = link.keys.incarnation
    redis_server.restart()
    counting.shard.script_load(_TEXT)
    eventually(lambda: link.connection is None or link.connection._poll.poll(0))
    assert counting.run(link) == 1
    assert link.keys.incarnation != before


def test_a_rested_connection_is_looked_at_before_it_is_used(
    redis_server: RedisServer, counting: Counting
) -> None:
    """A shard that leads again after it has followed another is a new life, on one connection."""
    with RedisServer() as other:
        link = counting.link(redis_server.url)
        counting.run(link)
        before = link.keys.incarnation
        counting.shard.replicaof("127.0.0.1", other.port)
        eventually(lambda: counting.shard.info("replication")["master_link_status"] == "up")
        counting.shard.replicaof("no", "one")
        link._look_at = time.monotonic() - HEARTBEAT_S
        counting.shard.script_load(_TEXT)
        counting.run(link)
        assert link.keys.incarnation != before


def test_a_write_to_a_replica_is_not_executed(
    redis_server: RedisServer, counting: Counting
) -> None:
    """READONLY is a refusal: definite."""
    with RedisServer() as other:
        link = counting.link(redis_server.url)
        finish(link.ready())
        counting.shard.replicaof("127.0.0.1", other.port)
        with pytest.raises(ShardUnavailable) as caught:
            counting.run(link)
        assert caught.value.definite
        assert counting.executions() == 0


def test_an_interrupted_call_takes_its_connection_with_it(
    proxy: TcpProxy, counting: Counting
) -> None:
    """A signal's handler that raises (Celery's time limit) leaves no answer for the next call."""

    class TimeIsUp(Exception):
        pass

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    assert threading.current_thread() is threading.main_thread()
    link = counting.link(proxy.url)
    counting.run(link)
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        proxy.blackhole("replies")
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeIsUp):
            counting.run(link)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    proxy.heal()
    assert counting.run(link) == 3
