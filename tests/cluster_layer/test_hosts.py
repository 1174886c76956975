"""Which loop serves a call, and what happens when loops end."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_layer import hosts as module
from cluster_layer.config import Config
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ConfigError
from cluster_layer.hosts import Hosts, Runtime
from cluster_layer.loops import LIVING_S, background_loop
from cluster_layer.node import Node
from tests.support.layers import topology_store
from tests.support.waiting import eventually
from topology.errors import TopologyError
from topology.model import Shard
from topology.planning import initial_topology


def hosts_of(**config: Any) -> Hosts:
    return Hosts(Config.from_dict(config), "process", Counters(), None)


@pytest.fixture
def hosts(redis_server: RedisServer) -> Iterator[Hosts]:
    hosts = hosts_of(hosts=[redis_server.url])
    hosts.open()
    yield hosts
    asyncio.run(hosts.close())
    gc.collect()


def on_a_new_loop(call: Callable[[], Any]) -> Any:
    """What the call returns on a loop that is made for it alone."""

    async def once() -> Any:
        return call()

    return asyncio.run(once())


def test_a_list_of_hosts_is_a_topology(hosts: Hosts, redis_server: RedisServer) -> None:
    """Opening it asks nobody, and is done once."""
    assert list(hosts.routes.endpoints()) == [f"127.0.0.1:{redis_server.port}"]
    routes = hosts.routes
    hosts.open()
    assert hosts.routes is routes
    assert hosts.epoch == routes.topology.epoch


def test_a_loop_that_has_not_heard_of_a_shards_end_is_asked_all_the_same(
    redis_server: RedisServer,
) -> None:
    """Another thread brings a topology while the loop is busy."""
    one, two = Shard("one", redis_server.url), Shard("two", "redis://127.0.0.1:1")
    before = initial_topology([one, two], cluster="5" * 16)
    hosts = hosts_of(topology=topology_store(before))
    hosts.open()

    async def look() -> None:
        hosts.own_runtime()
        assert hosts.connected() == {"one": False, "two": False}
        after = initial_topology([one], cluster="5" * 16, epoch=2)
        bringing = threading.Thread(target=hosts._topologies.offer, args=(after,))
        bringing.start()
        bringing.join()
        assert hosts.connected() == {"one": False}
        await hosts.close()

    asyncio.run(look())


def test_a_topology_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening fails instead of routing names to nowhere; tried again, it leaves nothing behind."""
    monkeypatch.setattr(module, "OPEN_S", 0.3)
    hosts = hosts_of(topology=(tmp_path / "none.json").as_uri(), topology_cache=None)
    threads = set(threading.enumerate())
    for _ in range(3):
        with pytest.raises(TopologyError):
            hosts.open()
    assert hosts.epoch == 0
    assert hosts.connected() == {}
    eventually(lambda: set(threading.enumerate()) <= threads)


def test_a_wrong_topology_url_is_told_at_construction() -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match="topology"):
        hosts_of(topology="gopher://nowhere/")


def test_loops_for_one_call_share_the_background(hosts: Hosts) -> None:
    """A hundred of them have one runtime together, which outlives them."""
    runtimes = {on_a_new_loop(hosts.sender) for _ in range(100)}
    (runtime,) = runtimes
    assert runtime.loop is background_loop().loop


async def test_a_living_loop_has_its_own_runtime(redis_server: RedisServer) -> None:
    """It is given one after a while, or when the layer is opened on it."""
    hosts = hosts_of(hosts=[redis_server.url])
    hosts.open()
    loop = asyncio.get_running_loop()
    assert hosts.sender().loop is not loop
    hosts._ages._first_seen[loop] -= LIVING_S
    own = hosts.sender()
    assert own.loop is loop
    assert hosts.sender() is own is hosts.own_runtime()
    await hosts.close()


async def test_a_process_has_one_node(redis_server: RedisServer) -> None:
    """On the loop that received first; other loops and threads are served by it."""
    hosts = hosts_of(hosts=[redis_server.url])
    hosts.open()
    node = hosts.receiver()
    assert node.loop is asyncio.get_running_loop()
    others = await asyncio.gather(
        *(asyncio.to_thread(on_a_new_loop, hosts.receiver) for _ in range(4))
    )
    assert set(others) == {node}
    await hosts.close()


def test_a_node_goes_on_in_the_background_when_its_loop_ends(hosts: Hosts) -> None:
    """With its names, cursors, messages and memberships."""

    async def receive() -> Node:
        node = hosts.receiver()
        node.receivers.watch_inbox("p.1!")
        await node.join("g", "p.1!a")
        return node

    first = asyncio.run(receive())
    eventually(lambda: hosts.node is not first)
    node = hosts.node
    assert node is not None
    assert node.loop is background_loop().loop
    assert node.state is first.state
    assert node.state.inboxes == {"p.1!"}
    assert on_a_new_loop(hosts.receiver) is node
    assert len(node.groups) == 1


def test_threads_that_come_at_once_share_what_they_make(hosts: Hosts) -> None:
    """One runtime in the background, however many threads need the first."""
    found: list[Runtime] = []
    start = threading.Barrier(8)

    def call() -> None:
        start.wait(10)
        found.append(on_a_new_loop(hosts.sender))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


async def test_closing_disconnects_and_opening_again_goes_on(redis_server: RedisServer) -> None:
    """No task and no connection stays; the state of the process does."""
    hosts = hosts_of(hosts=[redis_server.url])
    hosts.open()
    hosts.own_runtime()
    node = hosts.receiver()
    await node.join("g", "p.1!a")
    assert set(hosts.connected().values()) == {True}
    await hosts.close()
    assert hosts.connected() == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}
    hosts.open()
    successor = hosts.receiver()
    assert successor is not node
    assert len(successor.groups) == 1
    await hosts.close()
