"""The layer's own part: between loops, threads and forks. What it promises is tested end to end."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ConfigError, InvalidName, NotOurChannel
from tests.support.waiting import eventually_async


@pytest.fixture
async def layer(redis_server: RedisServer) -> AsyncIterator[ClusterChannelLayer]:
    layer = ClusterChannelLayer(hosts=[redis_server.url], prefix="test")
    yield layer
    await layer.close()


def message(number: int) -> dict[str, Any]:
    return {"type": "test", "n": number}


def test_construction_opens_nothing() -> None:
    """A settings module may be imported where no shard is reachable, and before forks."""
    threads = set(threading.enumerate())
    layer = ClusterChannelLayer(hosts=["redis://nowhere.invalid:1"])
    assert set(threading.enumerate()) == threads
    assert layer.stats()["shards"] == {}


def test_a_mistake_in_the_settings_is_told_at_construction() -> None:
    """With the key's name, before anything is opened."""
    with pytest.raises(ConfigError, match="capactiy"):
        ClusterChannelLayer(capactiy=5)


async def test_a_name_belongs_to_the_process_that_made_it(layer: ClusterChannelLayer) -> None:
    """Names never repeat, and nobody else's can be received here."""
    names = {await layer.new_channel("chat") for _ in range(100)}
    assert len(names) == 100
    assert len({name.partition("!")[0] for name in names}) == 1
    with pytest.raises(NotOurChannel):
        await layer.receive("chat.0123456789abcdef!x")
    with pytest.raises(InvalidName):
        await layer.new_channel("chat room")


async def test_the_name_of_the_channel_comes_with_its_message(layer: ClusterChannelLayer) -> None:
    """A receiver of the part up to ``!`` learns whom a message is for."""
    channel = await layer.new_channel()
    await layer.send(channel, message(1))
    name = channel[: channel.index("!") + 1]
    assert await layer.receive_from(name) == (channel, message(1))


def seen_in_a_child(look: Callable[[], str]) -> str:
    """What the function returns in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, look().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        seen = pipe.read().decode()
    os.waitpid(child, 0)
    return seen


# Python warns of forks beside threads from 3.12 on; prefork servers do it all the same.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_process_is_another(layer: ClusterChannelLayer) -> None:
    """It has a name of its own, and takes nothing of its parent's connections with it."""
    channel = await layer.new_channel()
    await layer.send(channel, message(1))
    seen = seen_in_a_child(lambda: f"{layer._checked_process_id()} {layer._hosts.opened}")
    process, opened = seen.split()
    assert process != layer.stats()["process"]
    assert opened == "False"
    assert await layer.receive(channel) == message(1)


async def test_a_receive_cancelled_on_another_loop_loses_nothing(
    layer: ClusterChannelLayer,
) -> None:
    """In the very moment in which the node's loop has taken the message for it."""
    channel = await layer.new_channel()
    await layer.send(channel, message(1))
    assert await layer.receive(channel) == message(1)
    node = layer._hosts.node
    assert node is not None
    box = node.mailboxes.open(channel)
    received: list[dict[str, Any]] = []
    cancel = threading.Event()
    cancelled = threading.Event()

    async def receive_elsewhere() -> None:
        receiving = asyncio.ensure_future(layer.receive(channel))
        await asyncio.to_thread(cancel.wait, 20)
        receiving.cancel()
        received.extend(
            one
            for one in await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(one, dict)
        )
        cancelled.set()

    thread = threading.Thread(target=lambda: asyncio.run(receive_elsewhere()))
    thread.start()
    await eventually_async(lambda: box.waiters)
    await layer.send(channel, message(2))
    while box.waiters:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the node's receive has taken it; its caller has not heard of it
    cancel.set()
    cancelled.wait(20)  # this loop, which is the node's, stands still meanwhile
    await asyncio.to_thread(thread.join)
    if not received:
        async with asyncio.timeout(20):
            received.append(await layer.receive(channel))
    assert received == [message(2)]


async def test_the_layer_shows_no_password() -> None:
    """Neither in its repr nor in its statistics."""
    with RedisServer(password="hidden-word") as server:
        layer = ClusterChannelLayer(hosts=[server.url])
        await layer.open()
        assert "hidden-word" not in repr(layer) + str(layer.stats()) + repr(vars(layer))
        await layer.close()
