"""The layer without asyncio keeps the promises, in threads and across forks."""

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import (
    ChannelFull,
    DeliveryUnknown,
    InvalidName,
    LayerClosed,
    MessageTooLarge,
    NotOurChannel,
    ShardUnavailable,
)
from cluster_layer.sync import SyncChannelLayer
from tests.support.changes import changes_of
from tests.support.layers import (
    DEADLINE_S,
    numbered,
    open_layer,
    receive_numbers,
    shared_config,
    topology_file,
    topology_store,
    unique_prefix,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology


@contextmanager
def sync_layer(servers: Sequence[Any], **more: Any) -> Iterator[SyncChannelLayer]:
    with SyncChannelLayer(**shared_config(servers, **more)) as layer:
        yield layer


def numbers_of(layer: SyncChannelLayer, channel: str, count: int) -> list[int]:
    return [layer.receive(channel, DEADLINE_S)["n"] for _ in range(count)]


def group_on_each_shard(layer: SyncChannelLayer) -> list[str]:
    found: dict[str, str] = {}
    for number in range(10_000):
        shard = layer.locate(f"group{number}")
        found.setdefault(shard, f"group{number}")
        if len(found) == len(layer.stats()["shards"]):
            return list(found.values())
    raise AssertionError(found)


def in_child(work: Any) -> Any:
    """What a function returns in a fork of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return json.loads(data)


def test_all_verbs_work_without_a_loop(shards: list[RedisServer]) -> None:
    """Normal and process-specific channels, groups, flush."""
    with sync_layer(shards) as layer:
        channel = layer.new_channel()
        layer.send(channel, numbered(1))
        layer.send("orders", numbered(2))
        assert layer.receive(channel, DEADLINE_S) == numbered(1)
        assert layer.receive("orders", DEADLINE_S) == numbered(2)
        layer.group_add("group", channel)
        layer.group_add("group", "orders")
        layer.group_send("group", numbered(3))
        assert layer.receive(channel, DEADLINE_S) == numbered(3)
        assert layer.receive("orders", DEADLINE_S) == numbered(3)
        assert layer.group_channels("group") == {channel, "orders"}
        layer.group_send("group", numbered(3), exclude=["orders"])
        assert layer.receive(channel, DEADLINE_S) == numbered(3)
        assert layer.send_many([(channel, numbered(6)), ("orders", numbered(7))]) == [None, None]
        assert layer.receive(channel, DEADLINE_S) == numbered(6)
        assert layer.receive("orders", DEADLINE_S) == numbered(7)
        layer.group_discard("group", channel)
        assert layer.group_count("group") == 1
        layer.group_send("group", numbered(4))
        layer.send(channel, numbered(5))
        inbox = channel[: channel.index("!") + 1]
        assert layer.receive(inbox, DEADLINE_S) == numbered(5)
        assert layer.receive_many([inbox, "orders"], True, DEADLINE_S) == ("orders", numbered(4))
        layer.send("orders", numbered(6))
        layer.flush()
        assert layer.receive_many(["orders", channel]) == (None, None)


def test_nothing_to_receive(shards: list[RedisServer]) -> None:
    """What receive and receive_many do when nothing comes, and with wrong names."""
    with sync_layer(shards) as layer:
        with pytest.raises(TimeoutError):
            layer.receive("orders", 0.05)
        assert layer.receive_many(["orders"], block=True, timeout=0.05) == (None, None)
        assert layer.receive_many(["orders", layer.new_channel()]) == (None, None)
        for wrong in ([], "orders", ["a channel"]):
            with pytest.raises(InvalidName):
                layer.receive_many(wrong)
        with pytest.raises(NotOurChannel):
            layer.receive("specific.0123456789abcdef!1", 1)


def test_a_look_sees_what_was_sent_before(shards: list[RedisServer]) -> None:
    """receive_many without blocking asks the shards, not only what has arrived by itself."""
    with sync_layer(shards, capacity=1000) as layer:
        channel = layer.new_channel()
        for number in range(50):
            name = "orders" if number % 2 else channel
            layer.send(name, numbered(number))
            assert layer.receive_many([channel, "orders"]) == (name, numbered(number))


def test_errors_are_those_of_the_layer(redis_server: RedisServer) -> None:
    """ChannelFull, MessageTooLarge and ShardUnavailable are definite."""
    with sync_layer([redis_server], capacity=2, message_size_limit=1_000_000, timeout=0.5) as layer:
        layer.send("orders", numbered(1))
        layer.send("orders", numbered(2))
        with pytest.raises(ChannelFull):
            layer.send("orders", numbered(3))
        with pytest.raises(MessageTooLarge):
            layer.send("orders", numbered(3, text="x" * 1_000_000))
        assert numbers_of(layer, "orders", 2) == [1, 2]
        redis_server.kill()
        eventually(lambda: not layer.stats()["shards"][layer.locate("orders")]["connected"])
        for call in (layer.send, layer.group_send):
            with pytest.raises(ShardUnavailable) as caught:
                call("orders", numbered(4))
            assert caught.value.definite


def test_a_lost_answer_is_unknown_and_the_message_comes_once(redis_server: RedisServer) -> None:
    """P1, P9: what may have been written is never written again, by whichever verb."""
    with (
        TcpProxy("127.0.0.1", redis_server.port) as proxy,
        sync_layer([proxy], timeout=2) as layer,
    ):
        channel = layer.new_channel()
        layer.group_add("group", channel)
        layer.send(channel, numbered(0))
        layer.group_send("group", numbered(1))
        assert numbers_of(layer, channel, 2) == [0, 1]
        proxy.lose_next_reply(b"number two")
        with pytest.raises(DeliveryUnknown):
            layer.send(channel, numbered(2, text="number two"))
        eventually(lambda: _sends(layer, channel, 3))
        proxy.lose_next_reply(b"number four")
        with pytest.raises(DeliveryUnknown):
            layer.group_send("group", numbered(4, text="number four"))
        eventually(lambda: _sends(layer, channel, 5))
        assert [n for n in _all_numbers(layer, channel) if n != 4] == [2, 3, 5]


def _sends(layer: SyncChannelLayer, channel: str, number: int) -> bool:
    try:
        layer.send(channel, numbered(number))
    except ShardUnavailable:
        return False
    return True


def _all_numbers(layer: SyncChannelLayer, channel: str) -> list[int]:
    layer.send(channel, numbered(-1))
    numbers: list[int] = []
    while (number := layer.receive(channel, DEADLINE_S)["n"]) >= 0:
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("unconfirmed_share", [0.0, 0.5, 1.0])
def test_a_thread_s_messages_come_in_its_order(
    shards: list[RedisServer], tmp_path: Path, unconfirmed_share: float
) -> None:
    """P3: by send and group_send, over several shards, answered and unanswered ones mixed."""
    ids = ["one", "two", "three"]
    prefix = unique_prefix()
    proxies = [TcpProxy("127.0.0.1", shard.port) for shard in shards]
    near = topology_file(tmp_path / "near.json", dict(zip(ids, shards, strict=True)))
    far = topology_file(tmp_path / "far.json", dict(zip(ids, proxies, strict=True)))
    with (
        SyncChannelLayer(topology=near, prefix=prefix, capacity=1000) as writer,
        SyncChannelLayer(topology=far, prefix=prefix, capacity=1000) as reader,
    ):
        channel = reader.new_channel()
        groups = group_on_each_shard(reader)
        for group in groups:
            reader.group_add(group, channel)
        for proxy, delay_s in zip(proxies, (0.0, 0.03, 0.06), strict=True):
            proxy.delay(delay_s, "replies")
        choice = random.Random(1)
        for number in range(200):
            confirm = choice.random() >= unconfirmed_share
            if choice.random() < 0.4:
                writer.send(channel, numbered(number), confirm=confirm)
            else:
                writer.group_send(choice.choice(groups), numbered(number), confirm=confirm)
        assert numbers_of(reader, channel, 200) == list(range(200))
    for proxy in proxies:
        proxy.close()


def test_after_an_acknowledged_leave_nothing_comes(shards: list[RedisServer]) -> None:
    """P2: not even what is sent at once by the same thread."""
    with sync_layer(shards) as layer:
        channel = layer.new_channel()
        for number in range(50):
            layer.group_add("group", channel)
            layer.group_discard("group", channel)
            layer.group_send("group", numbered(number))
        assert _all_numbers(layer, channel) == []


def test_many_threads_share_a_layer(shards: list[RedisServer]) -> None:
    """Every thread's messages are there, each once, in the order of its thread."""
    with sync_layer(shards, capacity=100_000) as layer:
        channel = layer.new_channel()

        def write(thread: int) -> None:
            for number in range(100):
                layer.send(channel, numbered(1000 * thread + number))
                layer.send("orders", numbered(1000 * thread + number))

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(write, range(12)))
            halves = list(threads.map(lambda _: numbers_of(layer, "orders", 300), range(4)))
        everything = [1000 * thread + number for thread in range(12) for number in range(100)]
        assert sorted(number for half in halves for number in half) == everything
        arrived = numbers_of(layer, channel, 1200)
        for thread in range(12):
            own = [number for number in arrived if number // 1000 == thread]
            assert own == everything[100 * thread : 100 * thread + 100]


def test_a_busy_channel_does_not_keep_quiet_ones_waiting(shards: list[RedisServer]) -> None:
    """A message on a quiet channel comes among the next few, normal or process-specific."""
    with sync_layer(shards, capacity=10_000) as layer:
        channel = layer.new_channel()
        names = [channel, "busy", "quiet"]
        for number in range(200):
            layer.send("busy", numbered(number))
            layer.send(channel, numbered(number))
        for _ in range(20):
            layer.receive_many(names, block=True, timeout=DEADLINE_S)
        layer.send("quiet", numbered(0))
        came = [layer.receive_many(names, True, DEADLINE_S)[0] for _ in range(4)]
        assert "quiet" in came
        rest = [layer.receive_many(names, True, DEADLINE_S) for _ in range(400 - 23)]
        assert {name for name, _ in rest[:10]} == {channel, "busy"}
        numbers = [message["n"] for name, message in rest if name == "busy" and message]
        assert numbers == sorted(numbers)
        assert layer.receive_many(names) == (None, None)


def test_a_receiver_that_gives_up_loses_nothing(shards: list[RedisServer]) -> None:
    """Timeouts at the moment in which messages come: each comes once, to some call."""
    with sync_layer(shards, capacity=10_000) as layer:
        channel = layer.new_channel()

        def write() -> None:
            for number in range(150):
                layer.send(channel, numbered(number))
                layer.send("orders", numbered(1000 + number))

        writer = threading.Thread(target=write)
        writer.start()
        numbers: list[int] = []
        deadline = time.monotonic() + DEADLINE_S
        choice = random.Random(2)
        while len(numbers) < 300 and time.monotonic() < deadline:
            _, message = layer.receive_many(
                ["orders", channel], block=True, timeout=choice.random() * 0.004
            )
            if message is not None:
                numbers.append(message["n"])
        writer.join()
        assert sorted(numbers) == [*range(150), *range(1000, 1150)]
        own = [number for number in numbers if number < 1000]
        assert own == list(range(150))


def test_a_fork_is_a_process_of_its_own(redis_server: RedisServer) -> None:
    """It sends, receives and closes, and its parent goes on with its connections and channels."""
    with sync_layer([redis_server]) as layer:
        channel = layer.new_channel()
        layer.group_add("group", channel)
        layer.group_send("group", numbered(0))
        assert numbers_of(layer, channel, 1) == [0]

        def child() -> list[Any]:
            own = layer.new_channel()
            layer.group_add("group", own)
            layer.send(channel, numbered(1))
            layer.group_send("group", numbered(2))
            found = [layer.receive(own, DEADLINE_S)["n"], layer.stats()["process"]]
            layer.close()
            return found

        (number, process) = in_child(child)
        assert number == 2
        assert process != layer.stats()["process"]
        assert numbers_of(layer, channel, 2) == [1, 2]
        layer.send(channel, numbered(3))
        assert numbers_of(layer, channel, 1) == [3]
        in_child(lambda: layer.close())  # of what its parent has opened
        layer.send(channel, numbered(4))
        assert numbers_of(layer, channel, 1) == [4]
        assert layer.stats()["shards"][layer.locate("x")]["reconnects"] == 0


def test_closing_ends_who_waits_and_the_next_call_opens_anew(shards: list[RedisServer]) -> None:
    """LayerClosed for receivers; memberships and the process's names stay."""
    with sync_layer(shards) as layer:
        channel = layer.new_channel()
        layer.group_add("group", channel)
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                layer.receive(channel, DEADLINE_S)
            except LayerClosed as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        node = eventually(lambda: layer._core._hosts.node)
        assert node is not None
        eventually(lambda: (box := node.mailboxes.find(channel)) and box.waiters)
        layer.close()
        waiting.join(DEADLINE_S)
        assert len(ended) == 1
        layer.send(channel, numbered(1))
        assert numbers_of(layer, channel, 1) == [1]
        layer.group_add("group", channel)  # it is a member; this waits until it is heard again
        layer.group_send("group", numbered(2))
        assert numbers_of(layer, channel, 1) == [2]


def test_a_program_without_close_ends(redis_server: RedisServer) -> None:
    """A script may simply stop, also while a thread of it waits for a message."""

    def child() -> int:
        layer = SyncChannelLayer(hosts=[redis_server.url])
        layer.send("orders", numbered(1))
        waiting = threading.Thread(target=layer.receive, args=("nothing",), daemon=True)
        waiting.start()
        number: int = layer.receive("orders", DEADLINE_S)["n"]
        return number

    assert in_child(child) == 1


async def test_planned_changes_lose_and_disorder_nothing(shards: list[RedisServer]) -> None:
    """P5: threads write while shards come and go; a refusal is followed to the new home."""
    ids = [Shard(f"s{number}", server.url) for number, server in enumerate(shards)]
    url = topology_store(initial_topology(ids, cluster=new_cluster_id()))
    config: dict[str, Any] = {"topology": url, "prefix": unique_prefix(), "capacity": 100_000}
    over = threading.Event()
    async with open_layer(**config) as receiver, changes_of(url) as changes:
        channel = await receiver.new_channel()
        groups = [f"group{number}" for number in range(8)]
        for group in groups:
            await receiver.group_add(group, channel)
        sender = SyncChannelLayer(**config)

        def write(thread: int) -> int:
            choice, number = random.Random(thread), 0
            while not over.is_set():
                message = numbered(thread * 1_000_000 + number)
                if choice.random() < 0.3:
                    sender.send(channel, message)
                else:
                    sender.group_send(choice.choice(groups), message)
                number += 1
            return number

        writers = [asyncio.create_task(asyncio.to_thread(write, thread)) for thread in range(2)]
        try:
            for wanted in (ids[:2], ids, ids[1:], ids):
                await changes.to(wanted)
        finally:
            over.set()
        counts = [await writer for writer in writers]
        arrived = await receive_numbers(receiver, channel, sum(counts))
        for thread, count in enumerate(counts):
            first = thread * 1_000_000
            own = [number for number in arrived if number // 1_000_000 == thread]
            assert own == list(range(first, first + count))
        await asyncio.to_thread(sender.close)


async def test_it_talks_with_a_layer_that_has_a_loop(shards: list[RedisServer]) -> None:
    """Both are one layer on the wire, also with encryption."""
    config = shared_config(shards, symmetric_encryption_keys=["a secret"])
    async with open_layer(**config) as layer:
        sync = SyncChannelLayer(**config)
        theirs, ours = sync.new_channel(), await layer.new_channel()
        await asyncio.to_thread(sync.group_add, "group", theirs)
        await layer.group_add("group", ours)
        await asyncio.to_thread(sync.group_send, "group", numbered(1))
        await layer.send(theirs, numbered(2))
        await asyncio.to_thread(sync.send, ours, numbered(3))
        assert await receive_numbers(layer, ours, 2) == [1, 3]
        assert await asyncio.to_thread(numbers_of, sync, theirs, 2) == [1, 2]
        await asyncio.to_thread(sync.group_add, "group", ours)  # renews it
        await asyncio.to_thread(sync.close)


def test_connections_do_not_grow_with_calls_or_threads(redis_server: RedisServer) -> None:
    """P8: a thread per request, as a WSGI server has."""
    with sync_layer([redis_server], capacity=100_000) as layer:
        layer.send("orders", numbered(0))
        with redis.Redis(port=redis_server.port) as client:
            before = client.info("stats")["total_connections_received"]
            for number in range(100):
                thread = threading.Thread(target=layer.send, args=("orders", numbered(number)))
                thread.start()
                thread.join()
            assert client.info("stats")["total_connections_received"] == before


def test_it_is_the_same_configuration() -> None:
    """A mistake is told at once, as by the layer with a loop."""
    for wrong in ({"host": "x"}, {"expiry": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))) as ours:
            SyncChannelLayer(**wrong)
        with pytest.raises(type(ours.value)):
            ClusterChannelLayer(**wrong)
