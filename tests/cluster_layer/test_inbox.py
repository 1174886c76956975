"""The inbox on a real shard: every entry once, in order, whatever happens to the connections."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import redis

from cluster_layer import inbox as module
from cluster_layer import scripts
from cluster_layer.embedded import RedisServer
from cluster_layer.inbox import ENTRIES, MAX_INCARNATIONS, Cursors, Entry, InboxReader
from cluster_layer.running import LinkSettings
from tests.support.parts import link_to, run_script
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from topology.errors import ClusterError

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
EXPIRY_MS = 60_000


class Process:
    """Whoever the entries are for: its inboxes, and all that it was given, in order."""

    def __init__(self, url: str, cursors: Cursors, *inboxes: str) -> None:
        self.inboxes = set(inboxes)
        self.taken: list[str] = []
        self.positions: defaultdict[str, list[int]] = defaultdict(list)
        self.added: list[int] = []
        self.ages: list[int] = []
        self.link = link_to(url, SETTINGS)
        self.reader = InboxReader(self.link, cursors, self, EXPIRY_MS)

    def inboxes_on(self, shard: str) -> set[str]:
        assert shard == "shard"
        return self.inboxes

    def on_entries(
        self, shard: str, incarnation: str, now_ms: int, entries: Sequence[Entry]
    ) -> None:
        assert shard == "shard"
        for position, added_ms, data in entries:
            self.taken.append(data.decode())
            self.positions[incarnation].append(position)
            self.added.append(added_ms)
            self.ages.append(now_ms - added_ms)

    async def close(self) -> None:
        await asyncio.gather(self.reader.stop(), return_exceptions=True)
        await self.link.close()


class Shard:
    """Appends as senders do, by the keys of the process under test."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)

    async def append(self, process: Process, inbox: str, *bodies: str) -> None:
        await process.link.ready()
        keys = process.link.keys
        named = (keys.inbox(inbox), keys.entries)
        for body in bodies:
            arguments = (10_000, EXPIRY_MS, body)
            reply = run_script(self.redis, scripts.INBOX_APPEND, keys.cluster, named, *arguments)
            assert reply[0] == 1

    def waiting(self, process: Process, inbox: str) -> int:
        return int(self.redis.xlen(process.link.keys.inbox(inbox)))


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def shard(redis_server: RedisServer) -> Iterator[Shard]:
    shard = Shard(redis_server)
    yield shard
    shard.redis.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking reads last so long that nobody mistakes their end for an interruption."""
    monkeypatch.setattr(module, "BLOCK_MS", 60_000)


@pytest.fixture
async def process(proxy: TcpProxy) -> AsyncIterator[Process]:
    process = Process(proxy.url, Cursors(), "p.1!")
    yield process
    await process.close()


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


async def test_entries_arrive_in_order_and_once(process: Process, shard: Shard) -> None:
    """Also more of them than one read takes, with the positions that the shard gave them."""
    count = 3 * ENTRIES + 7
    await shard.append(process, "p.1!", *numbers(count))
    await eventually_async(lambda: len(process.taken) >= count)
    assert process.taken == numbers(count)
    (positions,) = process.positions.values()
    assert positions == list(range(1, count + 1))


async def test_what_has_been_taken_is_trimmed(process: Process, shard: Shard) -> None:
    """The stream stays as short as what nobody has read, so capacity counts what waits."""
    await shard.append(process, "p.1!", *numbers(20))
    await eventually_async(lambda: len(process.taken) == 20)
    await eventually_async(lambda: shard.waiting(process, "p.1!") == 0)


async def test_entries_know_their_age_by_the_shard_s_clock(process: Process, shard: Shard) -> None:
    """What waited while nobody read is as old as that, and what just came is new."""
    await process.link.ready()
    key = process.link.keys.inbox("p.2!")
    seconds, _ = shard.redis.time()
    added_ms = (int(seconds) - 30) * 1000
    shard.redis.xadd(key, {"m": "old", "p": 1}, id=f"{added_ms}-0")
    shard.redis.xadd(key, {"m": "new", "p": 2})
    process.inboxes.add("p.2!")
    process.reader.look_again()
    await eventually_async(lambda: len(process.taken) == 2)
    assert process.added[0] == added_ms
    assert 29_000 <= process.ages[0] < 60_000
    assert process.ages[1] < 10_000


async def test_a_new_inbox_is_read_at_once(patient: None, process: Process, shard: Shard) -> None:
    """A blocking read of the others is interrupted: far sooner than its time is over."""
    await process.link.ready()  # it is what interrupts
    await eventually_async(lambda: shard.redis.info("clients")["blocked_clients"] == 1)
    process.inboxes.add("p.2!")
    process.reader.look_again()
    await eventually_async(lambda: "p.2!" in process.reader._reading)
    await shard.append(process, "p.2!", "one")
    await eventually_async(lambda: process.taken == ["one"])


async def test_the_entries_of_several_inboxes_are_in_one_order(
    process: Process, shard: Shard
) -> None:
    """That of their positions: within one millisecond, the ids of two streams have none.

    Also where one of them has more than a read takes.
    """
    await process.link.ready()
    pipeline = shard.redis.pipeline()
    sequences: Counter[str] = Counter()
    for number in range(3 * ENTRIES):
        inbox = "p.3!" if number % 10 == 0 else "p.2!"
        fields = {"m": number, "p": number + 1}
        pipeline.xadd(process.link.keys.inbox(inbox), fields, id=f"1-{sequences[inbox]}")
        sequences[inbox] += 1
    pipeline.execute()
    process.inboxes |= {"p.2!", "p.3!"}
    process.reader.look_again()
    await eventually_async(lambda: len(process.taken) >= 3 * ENTRIES)
    assert process.taken == numbers(3 * ENTRIES)
    assert process.positions[process.link.keys.incarnation] == list(range(1, 3 * ENTRIES + 1))


async def test_what_was_appended_to_several_inboxes_comes_in_the_order_of_the_writes(
    process: Process, shard: Shard
) -> None:
    """One counter on the shard numbers the entries of all of them, in whichever millisecond."""
    await process.link.ready()
    for number in range(200):
        await shard.append(process, "p.3!" if number % 3 == 0 else "p.2!", str(number))
    process.inboxes |= {"p.2!", "p.3!"}
    process.reader.look_again()
    await eventually_async(lambda: len(process.taken) >= 200)
    assert process.taken == numbers(200)
    assert process.positions[process.link.keys.incarnation] == list(range(1, 201))


async def test_a_lost_reply_costs_nothing(process: Process, shard: Shard, proxy: TcpProxy) -> None:
    """Reading changes nothing on the shard, so what a lost reply held is read again, once."""
    await shard.append(process, "p.1!", "first")
    await eventually_async(lambda: process.taken == ["first"])
    proxy.lose_next_reply(b"XREAD", count=3)
    for number in range(30):
        await shard.append(process, "p.1!", str(number))
        await asyncio.sleep(0)
    await eventually_async(lambda: len(process.taken) >= 31)
    assert process.taken == ["first", *numbers(30)]
    assert proxy.replies_lost > 0


async def test_cuts_lose_and_double_nothing(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """The cursor is kept across connections."""
    for start in range(0, 200, 20):
        await shard.append(process, "p.1!", *numbers(20, start))
        proxy.cut()
        await eventually_async(lambda: process.link.connection is not None)
    await eventually_async(lambda: len(process.taken) >= 200)
    assert process.taken == numbers(200)


async def test_reading_to_the_end_does_not_wait_for_the_blocking_read(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """Whatever had been appended has been taken when it returns; both ways give it once."""
    for start in range(0, 100, 10):
        await shard.append(process, "p.1!", *numbers(10, start))
        await process.reader.read_to_end()
        assert process.taken == numbers(start + 10)
    await shard.append(process, "p.1!", *numbers(2 * ENTRIES, 100))
    await process.reader.read_to_end()
    assert process.taken == numbers(100 + 2 * ENTRIES)


async def test_skipping_ignores_what_is_there(
    redis_server: RedisServer, proxy: TcpProxy, shard: Shard
) -> None:
    """After a flush nothing old comes, not even from a read that was under way."""
    cursors = Cursors()
    process = Process(proxy.url, cursors, "p.1!", "p.2!")
    await shard.append(process, "p.1!", "taken")
    await eventually_async(lambda: process.taken == ["taken"])
    await asyncio.gather(process.reader.stop(), return_exceptions=True)
    await shard.append(process, "p.1!", "old")
    await process.reader.skip_to_end()
    await shard.append(process, "p.1!", "new")
    await process.reader.read_to_end()
    assert process.taken == ["taken", "new"]
    await process.close()


async def test_a_cursor_outlives_its_reader(redis_server: RedisServer, shard: Shard) -> None:
    """Another loop that goes on with the same process's inbox begins where the last one ended."""
    cursors = Cursors()
    process = Process(redis_server.url, cursors, "p.1!")
    await shard.append(process, "p.1!", "one")
    await eventually_async(lambda: process.taken == ["one"])
    await process.close()
    successor = Process(redis_server.url, cursors, "p.1!")
    await shard.append(successor, "p.1!", "two")
    await eventually_async(lambda: successor.taken)
    assert successor.taken == ["two"]
    await successor.close()


async def test_a_restart_begins_a_new_inbox() -> None:
    """What a dump brings back lies under a dead incarnation and is never read."""
    with RedisServer(options={"appendonly": "yes", "appendfsync": "always"}) as server:
        shard = Shard(server)
        process = Process(server.url, Cursors(), "p.1!")
        await shard.append(process, "p.2!", "of an inbox that was not read then")
        await shard.append(process, "p.1!", "one")
        await eventually_async(lambda: process.taken == ["one"])
        before = process.link.keys.incarnation
        process.inboxes.add("p.2!")
        server.restart()
        await eventually_async(lambda: process.link.keys.incarnation != before)
        await shard.append(process, "p.1!", "two")
        await eventually_async(lambda: len(process.taken) >= 2)
        assert process.taken == ["one", "two"]
        await process.close()
        shard.redis.close()


async def test_a_dead_shard_is_told_to_who_asks(redis_server: RedisServer) -> None:
    """A barrier fails instead of hanging."""
    process = Process(redis_server.url, Cursors(), "p.1!")
    await process.link.ready()
    redis_server.kill()
    with pytest.raises(ClusterError):
        await process.reader.read_to_end()
    await process.close()


def test_cursors_are_kept_for_the_lives_that_are_read() -> None:
    """Their number is bounded, and those that are in use are never forgotten."""
    cursors = Cursors()
    cursors.of("lives long")["p.1!"] = b"5-0"
    for number in range(3 * MAX_INCARNATIONS):
        cursors.of(f"short-{number}")["p.1!"] = b"1-0"
        assert cursors.of("lives long") == {"p.1!": b"5-0"}
    assert cursors.of("short-0") == {}
    assert len(cursors._by_incarnation) <= MAX_INCARNATIONS
