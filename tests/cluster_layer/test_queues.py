"""Normal channels on a real shard: popped for those who wait, by one reader, and put back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from cluster_layer import queues, scripts
from cluster_layer.buffers import Loss, Mailbox, Parcel
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.queues import QueueReader, put_back
from cluster_layer.running import LinkSettings
from tests.support.parts import link_to, links_to, run_script
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
EXPIRY_MS = 60_000


class Receiver(asyncio.Future[str]):
    """A receiver that waits; its result is what it got."""

    def wake(self) -> None:
        raise AssertionError("it is the owner of the items who wakes")


class Process:
    """Whoever the items are for: receivers as futures, in mailboxes."""

    def __init__(self, url: str) -> None:
        self.boxes: dict[str, Mailbox] = {}
        self.lost: Counter[Loss] = Counter()
        self.nobody: list[str] = []
        self.url = url
        self.link = link_to(url, SETTINGS)
        self.reader = QueueReader(self.link, self, EXPIRY_MS)

    def receive(self, channel: str) -> Receiver:
        """A receiver that waits, until it is `gone(channel)`."""
        receiver = Receiver()
        box = self.boxes.setdefault(channel, Mailbox(channel, 100, None))
        box.waiters.append(receiver)
        self.reader.want(box)
        return receiver

    def gone(self, channel: str, receiver: Receiver) -> None:
        receiver.cancel()
        self.boxes[channel].waiters.remove(receiver)
        self.reader.unwant(self.boxes[channel])

    def on_item(self, shard: str, box: Mailbox, now_ms: int, item: bytes) -> None:
        assert shard == "shard"
        deadline, _, body = item.decode().partition(":")
        assert now_ms < int(deadline)
        if box.waiters:
            receiver = box.waiters.pop(0)
            assert isinstance(receiver, Receiver)
            receiver.set_result(body)
        else:
            self.nobody.append(body)

    def lose(self, reason: Loss, count: int) -> None:
        self.lost[reason] += count

    async def close(self) -> None:
        await self.reader.finish()
        await asyncio.gather(self.reader.stop(), return_exceptions=True)
        await self.link.close()


class Shard:
    """Pushes as senders do, by the keys of the process under test."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)

    async def push(self, process: Process, channel: str, *bodies: str) -> None:
        await process.link.ready()
        keys = process.link.keys
        for body in bodies:
            arguments = ([keys.queue(channel)], 10_000, EXPIRY_MS, body)
            assert run_script(self.redis, scripts.QUEUE_PUSH, keys.cluster, *arguments)[0] == 1

    def waiting(self, process: Process, channel: str) -> list[str]:
        items = self.redis.lrange(process.link.keys.queue(channel), 0, -1)
        return [item.decode().partition(":")[2] for item in items]

    def calls(self, command: str) -> int:
        """How often the shard has executed this command, whoever asked."""
        return int(self.redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def blocked(self) -> int:
        return int(self.redis.info("clients")["blocked_clients"])


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
    monkeypatch.setattr(queues, "BLOCK_S", 60)


@pytest.fixture
async def process(proxy: TcpProxy) -> AsyncIterator[Process]:
    process = Process(proxy.url)
    yield process
    await process.close()


async def test_nothing_is_popped_without_a_receiver(process: Process, shard: Shard) -> None:
    """A message stays on its shard, for any process, until somebody here waits for it."""
    await shard.push(process, "q", "1", "2")
    first = process.receive("q")
    assert await first == "1"
    assert shard.waiting(process, "q") == ["2"]
    assert await process.receive("q") == "2"


async def test_as_many_are_popped_as_wait(process: Process, shard: Shard) -> None:
    """Several receivers of several channels are served together, each channel in order."""
    await shard.push(process, "q", *"123456")
    await shard.push(process, "r", "x")
    receivers = [process.receive("q") for _ in range(4)]
    assert await process.receive("r") == "x"
    assert await asyncio.gather(*receivers) == list("1234")
    assert shard.waiting(process, "q") == ["5", "6"]


async def test_who_waits_on_does_not_ask_in_between(process: Process, shard: Shard) -> None:
    """What comes meanwhile ends the blocking read; only another channel has to be asked about."""
    receiver = process.receive("q")
    await eventually_async(lambda: shard.calls("blpop") >= 1)
    shard.redis.config_resetstat()
    await eventually_async(lambda: shard.calls("blpop") >= 3)
    assert shard.calls("evalsha") == 0
    other = process.receive("r")
    await eventually_async(lambda: shard.calls("evalsha") == 1)
    await shard.push(process, "q", "1", "2")
    await shard.push(process, "r", "x")
    assert [await receiver, await other, await process.receive("q")] == ["1", "x", "2"]


async def test_a_receiver_that_waits_is_served_at_once(
    patient: None, process: Process, shard: Shard
) -> None:
    """The shard keeps the read waiting: no polling, far faster than a period of anything."""
    receiver = process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    await shard.push(process, "q", "1")
    async with asyncio.timeout(20):
        assert await receiver == "1"


async def test_a_new_channel_is_read_at_once(patient: None, process: Process, shard: Shard) -> None:
    """A blocking read of other channels is interrupted for it."""
    process.receive("quiet")
    await eventually_async(lambda: shard.blocked() == 1)
    await shard.push(process, "q", "1")
    async with asyncio.timeout(20):
        assert await process.receive("q") == "1"


async def test_a_receiver_that_is_gone_is_popped_for_no_more(
    patient: None, process: Process, shard: Shard
) -> None:
    """The blocking read ends with the last receiver; what is sent later stays on the shard."""
    receiver = process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    process.gone("q", receiver)
    await eventually_async(lambda: shard.blocked() == 0)
    await shard.push(process, "q", "1")
    assert await process.receive("q") == "1"
    assert process.nobody == []


async def test_readers_in_several_processes_share_without_doubles(
    redis_server: RedisServer, shard: Shard
) -> None:
    """Each message goes to one of them, and all messages to somebody."""
    processes = [Process(redis_server.url) for _ in range(3)]
    received: list[str] = []

    async def keep_receiving(process: Process) -> None:
        while True:
            received.append(await process.receive("q"))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep_receiving(p)) for p in processes for _ in range(2)]
        await shard.push(processes[0], "q", *map(str, range(300)))
        await eventually_async(lambda: len(received) >= 300)
        for task in tasks:
            task.cancel()
    assert sorted(received, key=int) == [str(number) for number in range(300)]
    for process in processes:
        await process.close()


async def test_expired_items_are_counted(process: Process, shard: Shard) -> None:
    """They are dropped by the shard, and whoever pops counts them."""
    await process.link.ready()
    shard.redis.rpush(process.link.keys.queue("q"), "1:old", "1:old")
    await shard.push(process, "q", "new")
    assert await process.receive("q") == "new"
    assert process.lost == {Loss.EXPIRED: 2}


async def test_what_is_put_back_is_received_next(process: Process, shard: Shard) -> None:
    """By whoever waits, here or elsewhere, before everything that came later."""
    await shard.push(process, "q", "3")
    links = links_to(process.url, settings=SETTINGS, counters=Counters())
    now = asyncio.get_running_loop().time()
    parcels = [Parcel(b"", b"", now + 60, b"123:" + body) for body in (b"1", b"2")]
    await put_back(links, "q", parcels, EXPIRY_MS, now)
    await links.close()
    assert [await process.receive("q") for _ in range(3)] == ["1", "2", "3"]


async def test_a_forgotten_script_is_loaded_again(process: Process, shard: Shard) -> None:
    """SCRIPT FLUSH on the shard costs a round trip and no message."""
    await shard.push(process, "q", "1", "2")
    assert await process.receive("q") == "1"
    shard.redis.script_flush()
    assert await process.receive("q") == "2"


async def test_receivers_outlive_an_outage(redis_server: RedisServer, shard: Shard) -> None:
    """Nobody who waits is told of a dead shard; when it is back, they are served."""
    process = Process(redis_server.url)
    receiver = process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    before = process.link.keys.incarnation
    redis_server.kill()
    redis_server.start()
    await eventually_async(lambda: process.link.keys.incarnation != before)
    await shard.push(process, "q", "1")
    assert await receiver == "1"
    await process.close()


async def test_a_popped_message_whose_reply_is_lost_is_never_delivered_again(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """At most once: the next receiver gets the next message."""
    await shard.push(process, "q", "lost", "next")
    proxy.lose_next_reply(scripts.QUEUE_POP.sha.encode())
    assert await process.receive("q") == "next"
    assert proxy.replies_lost == 1


async def test_finishing_takes_in_what_is_on_its_way(
    process: Process, shard: Shard, proxy: TcpProxy
) -> None:
    """A message that has left the shard is handed over before the reader ends."""
    receiver = process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    proxy.delay(0.2, "replies")
    await shard.push(process, "q", "on its way")
    assert shard.waiting(process, "q") == []
    await process.reader.finish()
    assert receiver.done()
    assert await receiver == "on its way"


async def test_finishing_ends_a_blocking_read(
    patient: None, process: Process, shard: Shard
) -> None:
    """It does not wait until the read's time is over, and pops nothing more."""
    await process.link.ready()  # it is what interrupts
    process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    async with asyncio.timeout(20):
        await process.reader.finish()
    await shard.push(process, "q", "1")
    assert shard.waiting(process, "q") == ["1"]


async def test_a_shard_that_has_led_another_life_gives_nothing_back(
    process: Process, shard: Shard
) -> None:
    """What came with another server's data is discarded, though it lies under our keys."""
    await process.link.ready()
    key = process.link.keys.queue("q")
    receiver = process.receive("q")
    await eventually_async(lambda: shard.blocked() == 1)
    with RedisServer() as other:
        stale: Any = redis.Redis.from_url(other.url)
        stale.rpush(key, f"{2**52}:popped long ago")
        shard.redis.replicaof("127.0.0.1", other.port)
        await eventually_async(lambda: shard.redis.llen(key) == 1)
        shard.redis.replicaof("no", "one")
        stale.close()
    before = process.link.keys.incarnation
    await eventually_async(lambda: process.link.connection and _is_new(process, before), 5)
    await shard.push(process, "q", "new")
    assert await receiver == "new"


def _is_new(process: Process, before: str) -> bool:
    return process.link.keys.incarnation != before
