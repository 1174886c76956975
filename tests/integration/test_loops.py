"""Event loops that live or not, threads, and forks."""

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from asgiref.sync import async_to_sync

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer, start_shards
from tests.support.layers import (
    numbered,
    open_layer,
    receive,
    receive_numbers,
    unique_prefix,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """Servers of our own, whose connections we can count."""
    with start_shards(3) as started:
        yield started


@pytest.fixture
def layer(servers: list[RedisServer]) -> Iterator[ClusterChannelLayer]:
    made = ClusterChannelLayer(
        hosts=[server.url for server in servers], prefix=unique_prefix(), capacity=100_000
    )
    yield made
    asyncio.run(made.close())


def _connections_ever(servers: list[RedisServer]) -> list[int]:
    """How many connections each server has accepted, without those of this function."""
    counts = []
    for server in servers:
        with redis.Redis(port=server.port) as client:
            counts.append(client.info("stats")["total_connections_received"])
    return counts


@pytest.mark.slow
def test_ten_thousand_sync_sends_share_a_few_connections(
    servers: list[RedisServer], layer: ClusterChannelLayer
) -> None:
    """Each async_to_sync call has a new loop; the shards hardly notice."""
    before = _connections_ever(servers)
    send = async_to_sync(layer.send)
    for number in range(10_000):
        send(f"orders-{number % 30}", numbered(number))
    opened = [a - b - 1 for a, b in zip(_connections_ever(servers), before, strict=True)]
    print(f"10,000 sync sends opened {opened} connections")
    assert max(opened) <= 4

    async def read() -> list[int]:
        return [n for i in range(30) for n in await receive_numbers(layer, f"orders-{i}", 10)]

    assert len(asyncio.run(read())) == 300


def test_one_asyncio_run_after_another(
    servers: list[RedisServer], layer: ClusterChannelLayer
) -> None:
    """Sends, group sends and receives, each in a loop of its own, 100 times."""
    channel = asyncio.run(layer.new_channel())
    asyncio.run(layer.group_add("group", channel))
    before = _connections_ever(servers)
    for number in range(100):
        asyncio.run(layer.send("orders", numbered(number)))
        asyncio.run(layer.group_send("group", numbered(number)))
        assert asyncio.run(receive(layer, "orders")) == numbered(number)
        assert asyncio.run(receive(layer, channel)) == numbered(number)
    opened = [a - b - 1 for a, b in zip(_connections_ever(servers), before, strict=True)]
    assert max(opened) <= 8


def test_many_threads_send_at_once(layer: ClusterChannelLayer) -> None:
    """Eight threads with short-lived loops lose and repeat nothing."""

    def send(thread: int) -> None:
        for number in range(100):
            async_to_sync(layer.send)("orders", numbered(thread * 100 + number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    assert sorted(asyncio.run(receive_numbers(layer, "orders", 800))) == list(range(800))


def test_several_living_loops_at_once(layer: ClusterChannelLayer) -> None:
    """Four threads with a loop that lives each: all send, all receive what is theirs."""
    barrier = threading.Barrier(4)
    channels: dict[int, str] = {}

    async def live(index: int) -> list[int]:
        await layer.open()
        channels[index] = await layer.new_channel()
        await layer.group_add("group", channels[index])
        await asyncio.to_thread(barrier.wait)
        for number in range(25):
            await layer.send(channels[(index + 1) % 4], numbered(number))
            await layer.group_send("group", numbered(100 + number))
        return await receive_numbers(layer, channels[index], 25 + 4 * 25)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: asyncio.run(live(index)), range(4)))
    for numbers in results:
        counts = Counter(numbers)
        assert all(counts[number] == 1 for number in range(25))
        assert all(counts[number] == 4 for number in range(100, 125))


def test_names_and_memberships_survive_the_loop_that_made_them(layer: ClusterChannelLayer) -> None:
    """What a loop joined is still a member after its end, and its messages wait."""

    async def join() -> str:
        channel: str = await layer.new_channel()
        await layer.group_add("group", channel)
        receiver = asyncio.create_task(layer.receive(channel))
        await layer.group_send("group", numbered(1))
        assert await receiver == numbered(1)
        return channel

    channel = asyncio.run(join())
    asyncio.run(layer.group_send("group", numbered(2)))
    assert asyncio.run(receive(layer, channel)) == numbered(2)


async def test_closing_ends_all_connections_and_calls_open_them_again(
    servers: list[RedisServer],
) -> None:
    """close() leaves nothing behind, and is not the end."""
    async with open_layer(servers) as layer:
        for _ in range(3):
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            await layer.send(channel, numbered(1))
            assert await receive(layer, channel) == numbered(1)
            await layer.close()
            assert _clients(servers) == 0


def _clients(servers: list[RedisServer]) -> int:
    total = 0
    for server in servers:
        with redis.Redis(port=server.port) as client:
            total += int(client.info("clients")["connected_clients"]) - 1
    return total


def _run(program: str, *arguments: str) -> object:
    """Run a program in an interpreter of its own: a fork of pytest would fork its threads."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FORK = """
import asyncio, json, os, sys
from asgiref.sync import async_to_sync
from cluster_layer import ClusterChannelLayer

layer = ClusterChannelLayer(**json.loads(sys.argv[1]))

async def talk(name):
    channel = await layer.new_channel()
    await layer.group_add("group-" + name, channel)
    await layer.send(channel, {"type": "a", "n": 1})
    await layer.group_send("group-" + name, {"type": "a", "n": 2})
    async with asyncio.timeout(30):
        return channel, [(await layer.receive(channel))["n"] for _ in range(2)]

if sys.argv[2] == "used before":
    asyncio.run(talk("before"))
    async_to_sync(layer.send)("orders", {"type": "a", "n": 0})
read, write = os.pipe()
children = [os.fork()]
if children[0]:
    children.append(os.fork())
if not all(children):
    os.write(write, (json.dumps(asyncio.run(talk("child"))) + "\\n").encode())
    os._exit(0)
mine = asyncio.run(talk("parent"))
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
os.close(write)
theirs = [json.loads(line) for line in os.fdopen(read)]
asyncio.run(layer.close())
print(json.dumps([mine, *theirs]))
"""


@pytest.mark.parametrize("when", ["not used before", "used before"])
def test_parent_and_forked_children_all_work(servers: list[RedisServer], when: str) -> None:
    """As under gunicorn's and Celery's prefork: each is a process with names of its own."""
    config = json.dumps({"hosts": [s.url for s in servers], "prefix": unique_prefix()})
    results = _run(FORK, config, when)
    assert isinstance(results, list)
    assert len({channel.partition("!")[0] for channel, _ in results}) == 3
    for _, numbers in results:
        # The two children have a group in common, so they may hear of each other.
        assert numbers[0] in (1, 2)


MULTIPROCESSING = """
import asyncio, json, multiprocessing, sys
from cluster_layer import ClusterChannelLayer

layer = ClusterChannelLayer(**json.loads(sys.argv[1]))

def work(first):
    async def send():
        for number in range(first, first + 50):
            await layer.send("orders", {"type": "a", "n": number})
    asyncio.run(send())

async def read():
    async with asyncio.timeout(30):
        return sorted([(await layer.receive("orders"))["n"] for _ in range(200)])

if __name__ == "__main__":
    asyncio.run(layer.group_send("nobody", {"type": "a"}))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(work, range(0, 200, 50), chunksize=1)
    print(json.dumps(asyncio.run(read())))
    asyncio.run(layer.close())
"""


def test_a_pool_of_forked_processes_sends(servers: list[RedisServer]) -> None:
    """multiprocessing after the layer was used: nothing is lost, repeated or stuck."""
    config = json.dumps(
        {"hosts": [s.url for s in servers], "prefix": unique_prefix(), "capacity": 1000}
    )
    assert _run(MULTIPROCESSING, config) == list(range(200))
