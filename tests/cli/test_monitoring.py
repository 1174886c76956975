"""The monitor as a site runs it: two processes, a shard that is killed, a store that is away."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_layer.embedded import RedisServer, start_shards
from tests.support.command_line import CommandLine
from tests.support.layers import unique_prefix
from tests.support.stored import stored
from tests.support.waiting import eventually_async
from tests.support.zookeeper import ZooKeeperServer
from topology.model import ShardState

FAST = ("--down-after", "0.5", "--quiet-time", "1", "--probe-every", "0.2", "--return-step", "4096")


#: Many processes, one after the other.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """Of this test alone, which kills one."""
    with start_shards(3) as started:
        yield started


async def init(store: str, servers: list[RedisServer]) -> CommandLine:
    cli = CommandLine(store)
    named = [f"{name}={server.url}" for name, server in zip("abc", servers, strict=True)]
    await cli.run("init", *named)
    return cli


async def test_a_killed_shard_is_marked_down_and_taken_back(
    servers: list[RedisServer], tmp_path: Path
) -> None:
    """One of two monitors leads and decides; the decision and its evidence are in the history."""
    store = (tmp_path / "topology.json").as_uri()
    cli = await init(store, servers)
    async with (
        cli.running("monitor", "--name", "first", *FAST, "--json") as first,
        cli.running("monitor", "--name", "second", *FAST, "--json") as second,
    ):
        roles = {(await first.line() or {})["event"], (await second.line() or {})["event"]}
        assert roles == {"leads", "follows"}
        leader, follower = first, second
        if leader.lines[0]["event"] == "follows":
            leader, follower = follower, leader
        servers[1].kill()
        marked = await leader.until(lambda line: line["event"] == "marks down")
        assert marked["evidence"]["b"]["without"]
        assert stored(store).shard("b").state is ShardState.DOWN
        await eventually_async(lambda: told(cli, "marked down"))

        leader.signal(signal.SIGTERM)
        assert await leader.ended() == 0
        await follower.until(lambda line: line["event"] == "leads")
        servers[1].start()
        await follower.until(lambda line: line["event"] == "has done it")
        assert stored(store).shard("b").state is ShardState.UP
        follower.signal(signal.SIGINT)
        assert await follower.ended() == 0
    await cli.run("verify")


async def test_an_operators_down_shard_stays_down(
    servers: list[RedisServer], tmp_path: Path
) -> None:
    """The monitor takes back what monitors have marked, and nothing else."""
    store = (tmp_path / "topology.json").as_uri()
    cli = await init(store, servers)
    await cli.run("shard", "mark", "down", "c", "--yes", "--force", "answers")
    async with cli.running("monitor", *FAST, "--json") as monitor:
        await monitor.until(lambda line: line["event"] == "leads")
        servers[0].kill()
        await monitor.until(lambda line: line["event"] in ("marks down", "withholds"))
        servers[0].start()
        assert stored(store).shard("c").state is ShardState.DOWN


async def test_it_waits_for_a_store_that_is_away(servers: list[RedisServer]) -> None:
    """It starts without ZooKeeper, says so once, and outlives a later outage."""
    with ZooKeeperServer() as zookeeper:
        store = f"zookeeper://{zookeeper.hosts}/{unique_prefix()}"
        cli = await init(store, servers)
        zookeeper.kill()
        async with cli.running("monitor", *FAST, "--json") as monitor:
            assert (await monitor.line() or {})["event"] == "is in trouble"
            zookeeper.start()
            await monitor.until(lambda line: line["event"] == "leads")
            zookeeper.kill()
            await monitor.until(lambda line: line["event"] == "is in trouble")
            zookeeper.start()
            servers[2].kill()
            await monitor.until(lambda line: line["event"] == "marks down")
            monitor.signal(signal.SIGTERM)
            assert await monitor.ended() == 0


async def told(cli: CommandLine, wanted: str) -> bool:
    """Whether the history has an entry of this kind, with evidence."""
    entries = await cli.run("history")
    return any(entry["kind"] == wanted and entry["evidence"] for entry in entries)
