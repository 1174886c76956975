"""P1: a message is delivered at most once per addressee, whatever happens."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    DEADLINE_S,
    name_on,
    new_channel_on,
    numbered,
    numbers_before_end,
    only_end_comes,
    open_layer,
    outcome_of,
    receive,
    receive_numbers,
    shared_config,
    topology_file,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually, eventually_async
from tests.support.workers import workers
from topology.errors import ClusterError

Send = Callable[[str, dict[str, Any]], Awaitable[None]]


@contextmanager
def proxy_to(server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", server.port) as proxy:
        yield proxy


async def _addressee(layer: ClusterChannelLayer, kind: str) -> tuple[str, str, Send]:
    """Where to receive, where to send and how, for one of the three ways a message arrives."""
    if kind == "normal":
        return "orders", "orders", layer.send
    channel = await layer.new_channel()
    if kind == "direct":
        return channel, channel, layer.send
    await layer.group_add("group", channel)
    return channel, "group", layer.group_send


async def _numbers_until_healed(layer: ClusterChannelLayer, channel: str) -> list[int]:
    """What arrives until the first of the end markers does that are sent all the time.

    One marker would not do: a shard may take it and then fail.
    """
    reading = asyncio.create_task(numbers_before_end(layer, channel))

    async def heard() -> bool:
        await outcome_of(layer.send(channel, numbered(-1, end=True)))
        await asyncio.wait([reading], timeout=0.1)
        return reading.done()

    await eventually_async(heard)
    return await reading


@pytest.mark.parametrize("kind", ["direct", "normal", "group"])
async def test_a_write_whose_answer_is_lost_is_not_repeated(
    redis_server: RedisServer, kind: str
) -> None:
    """The shard executed it once; the writer is told that it cannot know."""
    with proxy_to(redis_server) as proxy:
        async with open_layer([proxy]) as layer:
            channel, name, send = await _addressee(layer, kind)
            await send(name, numbered(0))
            proxy.lose_next_reply(match=b"the-lost-one")
            assert await outcome_of(send(name, numbered(1, text="the-lost-one"))) == "unknown"
            assert proxy.replies_lost == 1
            arrived = await _numbers_until_healed(layer, channel)
            # A group's message that was published while its subscription was cut is lost: allowed.
            assert arrived in ([0, 1], [0]) if kind == "group" else arrived == [0, 1]


@pytest.mark.parametrize("joined", [True, False], ids=["joined itself too", "was only added"])
async def test_a_member_that_is_added_in_the_shard_s_next_life_gets_one_copy(
    tmp_path: Path, joined: bool
) -> None:
    """By another process, before the member's own has come back to the shard."""
    with RedisServer() as home, RedisServer() as other, proxy_to(home) as proxy:
        config: dict[str, Any] = {"prefix": unique_prefix(), "timeout": 0.5, "connect_timeout": 0.5}
        theirs = topology_file(tmp_path / "theirs", {"a": home, "b": other})
        ours = topology_file(tmp_path / "ours", {"a": proxy, "b": other})
        async with (
            open_layer(topology=theirs, **config) as sender,
            open_layer(topology=ours, **config) as member,
        ):
            group = await name_on(sender, "a", "group")
            channel = await new_channel_on(member, "b")
            asking = asyncio.create_task(member.receive(channel))
            if joined:
                await member.group_add(group, channel)
            proxy.refuse()
            proxy.cut()
            home.kill()
            home.start()
            await eventually_async(lambda: _is_ok(sender.group_add(group, channel)))
            await eventually_async(lambda: _is_ok(sender.group_send(group, numbered(0))))
            proxy.heal()
            assert (await asking)["n"] == 0  # sent to the member alone, by way of the other shard
            for number in itertools.count(1):
                await sender.group_send(group, numbered(number))
                assert await receive_numbers(member, channel, 1) == [number]
                if member.stats()["shards"]["a"]["received"] > 5:  # as to any other member
                    break
            await sender.group_send(group, numbered(number + 1))
            await sender.send(channel, numbered(-1, end=True))
            assert await numbers_before_end(member, channel) == [number + 1]


async def _is_ok(operation: Awaitable[None]) -> bool:
    return await outcome_of(operation) == "ok"


@pytest.mark.parametrize("kind", ["direct", "normal", "group"])
async def test_connections_that_break_all_the_time_deliver_nothing_twice(
    redis_server: RedisServer, kind: str
) -> None:
    """Cut at random moments, for reads and writes alike."""
    with proxy_to(redis_server) as proxy:
        async with open_layer([proxy], capacity=10_000, timeout=0.3) as layer:
            channel, name, send = await _addressee(layer, kind)
            received: list[int] = []

            async def read() -> None:
                while True:
                    received.append((await layer.receive(channel))["n"])

            async def disturb() -> None:
                while True:
                    await asyncio.sleep(random.uniform(0, 0.06))
                    proxy.cut()

            readers = [asyncio.create_task(read()) for _ in range(3 if kind == "normal" else 1)]
            disturbing = asyncio.create_task(disturb())
            outcomes = {}
            for number in range(300):
                outcomes[number] = await outcome_of(send(name, numbered(number)))
                await asyncio.sleep(0.001)
            disturbing.cancel()
            assert proxy.connections_accepted > 10

            async def reached_the_end() -> bool:
                await outcome_of(send(name, numbered(1_000_000)))
                return 1_000_000 in received

            await eventually_async(reached_the_end)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(disturbing, *readers, return_exceptions=True)
            numbers = [number for number in received if number != 1_000_000]
            assert not [number for number, times in Counter(numbers).items() if times > 1]
            assert all(outcomes[number] != "no" for number in numbers)
            if kind != "normal":
                assert numbers == sorted(numbers)


async def test_receivers_that_come_and_go_while_connections_break(
    redis_server: RedisServer,
) -> None:
    """What was popped for a receiver that is gone goes back, or is lost: never both."""
    with proxy_to(redis_server) as proxy:
        async with open_layer([proxy], capacity=10_000, timeout=0.3) as layer:
            received: list[int] = []
            done = asyncio.Event()

            async def read() -> None:
                while not done.is_set():
                    reader = asyncio.create_task(layer.receive("orders"))
                    await asyncio.wait([reader], timeout=random.choice([0, 0.001, 0.01]))
                    reader.cancel()
                    outcome = (await asyncio.gather(reader, return_exceptions=True))[0]
                    if isinstance(outcome, dict):
                        received.append(outcome["n"])

            readers = [asyncio.create_task(read()) for _ in range(4)]
            for number in range(400):
                if number % 20 == 19:
                    proxy.cut()
                await outcome_of(layer.send("orders", numbered(number)))
                await asyncio.sleep(0.001)
            done.set()
            await asyncio.gather(*readers)
            received += await _numbers_until_healed(layer, "orders")
            assert len(received) == len(set(received))
            print(f"{len(received)} of 400 arrived, none twice")
            assert len(received) > 100


PERSISTENT = {
    "RDB": {"save": "3600 1"},
    "AOF": {"appendonly": "yes", "appendfsync": "always"},
}


@pytest.mark.parametrize("kind", ["direct", "normal"])
@pytest.mark.parametrize("persistence", PERSISTENT)
async def test_a_restart_with_old_data_brings_nothing_back(kind: str, persistence: str) -> None:
    """After kill -9 and a restart from a dump, what had been received stays received."""
    with RedisServer(options=PERSISTENT[persistence]) as server:
        async with open_layer([server]) as layer:
            channel, name, send = await _addressee(layer, kind)
            for number in range(10):
                await send(name, numbered(number))
            with redis.Redis(port=server.port) as client:
                if persistence == "RDB":
                    client.save()
                keys_before = client.dbsize()
            assert keys_before > 0
            assert await receive_numbers(layer, channel, 10) == list(range(10))
            server.kill()
            server.start()
            with redis.Redis(port=server.port) as client:
                if persistence == "RDB":
                    assert client.dbsize() > 0  # The old data is there, under a dead incarnation.
            assert await _numbers_until_healed(layer, channel) == []


@pytest.mark.parametrize("kind", ["direct", "normal"])
async def test_a_server_that_follows_another_and_leads_again_brings_nothing_back(kind: str) -> None:
    """Connections and run id stay the same, and the data is an old copy: still nothing twice."""
    with (
        RedisServer() as server,
        RedisServer() as copy,
        redis.Redis(port=server.port) as ours,
        redis.Redis(port=copy.port) as other,
    ):
        # A server that gets its first replica begins a new history, so before the layer looks.
        _follow(other, server.port)
        async with open_layer([server]) as layer:
            channel, name, send = await _addressee(layer, kind)
            for number in range(10):
                await send(name, numbered(number))
            assert ours.wait(1, 10_000) == 1
            other.replicaof("NO", "ONE")
            assert await receive_numbers(layer, channel, 10) == list(range(10))
            _follow(ours, copy.port)
            ours.replicaof("NO", "ONE")
            assert await _numbers_until_healed(layer, channel) == []


@pytest.mark.parametrize("kind", ["direct", "normal"])
async def test_a_promoted_replica_brings_nothing_back(kind: str) -> None:
    """The address moves to a replica that still has what was received, and later back again."""
    with (
        RedisServer() as primary,
        RedisServer() as replica,
        redis.Redis(port=primary.port) as one,
        redis.Redis(port=replica.port) as other,
        proxy_to(primary) as address,
    ):
        _follow(other, primary.port)
        async with open_layer([address], timeout=0.5) as layer:
            channel, name, send = await _addressee(layer, kind)
            for number in range(10):
                await send(name, numbered(number))
            assert one.wait(1, 10_000) == 1
            other.replicaof("NO", "ONE")
            assert await receive_numbers(layer, channel, 10) == list(range(10))
            for server in (replica, primary, replica, primary):
                address._upstream = ("127.0.0.1", server.port)
                address.cut()
                assert await _numbers_until_healed(layer, channel) == []


def _follow(client: "redis.Redis", port: int) -> None:
    """Make a server the replica of another; returns when it has its data."""
    client.replicaof("127.0.0.1", str(port))
    eventually(lambda: client.info("replication")["master_link_status"] == "up")


@pytest.mark.slow
async def test_four_processes_share_a_normal_channel(shards: list[RedisServer]) -> None:
    """10,000 messages, four readers in four processes: each message is read once."""
    config = shared_config(shards, capacity=20_000)
    async with open_layer(**config) as layer, workers(4, config) as readers:
        reading = [asyncio.create_task(r.call("collect", "orders", 5.0)) for r in readers]
        for first in range(0, 10_000, 100):
            numbers = range(first, first + 100)
            await asyncio.gather(*(layer.send("orders", numbered(n)) for n in numbers))
        shares = [[message["n"] for message in share] for share in await asyncio.gather(*reading)]
        assert sorted(itertools.chain(*shares)) == list(range(10_000))
        print(f"10,000 messages, read once, by reader: {[len(share) for share in shares]}")


async def test_a_reader_that_dies_leaves_the_rest_to_the_others(
    shards: list[RedisServer],
) -> None:
    """What a killed process had taken is lost at most, never read by two."""
    config = shared_config(shards, capacity=5000)
    async with open_layer(**config) as layer, workers(1, config) as (victim,):
        for number in range(1000):
            await layer.send("orders", numbered(number))
        received = [(await victim.call("receive", "orders"))["n"] for _ in range(50)]
        victim.kill()
        await layer.send("orders", numbered(-1, end=True))
        rest = await numbers_before_end(layer, "orders")
        assert not set(received) & set(rest)
        assert len(rest) == len(set(rest))


@pytest.mark.parametrize("kind", ["direct", "normal", "group"])
async def test_cancelled_receivers_lose_and_repeat_nothing(
    shards: list[RedisServer], kind: str
) -> None:
    """Receivers come and are cancelled at random while 500 messages arrive, in order."""
    async with open_layer(shards, capacity=10_000) as layer:
        channel, name, send = await _addressee(layer, kind)
        received: list[int] = []

        async def write() -> None:
            for number in range(500):
                await send(name, numbered(number))

        writing = asyncio.create_task(write())
        async with asyncio.timeout(DEADLINE_S):
            while len(received) < 500:
                reader = asyncio.create_task(layer.receive(channel))
                await asyncio.sleep(random.choice([0, 0, 0.0001, 0.001, 0.003]))
                reader.cancel()
                outcome = (await asyncio.gather(reader, return_exceptions=True))[0]
                if isinstance(outcome, dict):
                    received.append(outcome["n"])
        await writing
        # Only process-specific channels promise the order as well.
        assert (sorted(received) if kind == "normal" else received) == list(range(500))
        assert await only_end_comes(layer, channel)


async def test_a_cancelled_send_happens_once_or_not_at_all(redis_server: RedisServer) -> None:
    """Cancelling a writer cannot make the layer send again."""
    async with open_layer([redis_server], capacity=10_000) as layer:
        channel = await layer.new_channel()
        for number in range(200):
            writer = asyncio.create_task(layer.send(channel, numbered(number)))
            await asyncio.sleep(random.choice([0, 0, 0.0002, 0.002]))
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await layer.send(channel, numbered(-1, end=True))
        arrived = await numbers_before_end(layer, channel)
        # Each writer is a task of its own: of the order among them nothing is promised.
        assert sorted(arrived) == sorted(set(arrived)), arrived


async def test_a_paused_shard_delivers_nothing_twice(redis_server: RedisServer) -> None:
    """A pause longer than the deadline is a broken connection; what it delayed comes once."""
    async with open_layer([redis_server], timeout=0.5, capacity=1000) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, numbered(0))
        assert await receive(layer, channel) == numbered(0)
        outcomes = {}
        for round_ in range(3):
            redis_server.pause()
            for number in range(round_ * 3 + 1, round_ * 3 + 4):
                outcomes[number] = await outcome_of(layer.send(channel, numbered(number)))
            redis_server.resume()
            await _wait_until_healthy(layer, channel)
        arrived = [n for n in await _numbers_until_healed(layer, channel) if n < 1000]
        assert arrived == sorted(set(arrived))
        assert all(outcomes[number] != "no" for number in arrived)


async def _wait_until_healthy(layer: ClusterChannelLayer, channel: str) -> None:
    for number in itertools.count(1000):
        try:
            await layer.send(channel, numbered(number))
        except ClusterError:
            await asyncio.sleep(0.05)
        else:
            return
