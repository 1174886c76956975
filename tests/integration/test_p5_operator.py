"""P5 from the operator's side: the command line is killed at every step, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_layer.embedded import RedisServer, start_shards
from tests.support.command_line import CommandLine
from tests.support.stored import stored
from tests.support.traffic import traffic_on

STEP = "600"  # slots: two rounds for a fourth shard
STEPS_AT_MOST = 100


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    """Four of their own: the shards of other tests are of other clusters."""
    with start_shards(4) as started:
        yield started


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "topology.json").as_uri()


def named(servers: list[RedisServer]) -> list[str]:
    return [f"{name}={server.url}" for name, server in zip("abcd", servers, strict=True)]


def next_change(url: str, fourth: str) -> tuple[str, ...]:
    """Add the fourth shard if it is not there, remove it if it is."""
    there = "d" in {shard.id for shard in stored(url).shards}
    verb = ("remove", "d") if there else ("add", fourth)
    return ("shard", *verb, "--yes", "--step", STEP)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_every_step_a_change_can_be_resumed(
    servers: list[RedisServer], store: str, stride: int
) -> None:
    """kill -9 after every `stride`th step: another process resumes it, all messages arrive."""
    cli = CommandLine(store)
    *three, fourth = named(servers)
    await cli.run("init", *three)
    async with traffic_on(store) as traffic:
        for steps in range(1, STEPS_AT_MOST, stride):
            change = next_change(store, fourth)
            if not await cli.killed_after(steps, *change):
                break
            under_way = stored(store).change is not None
            await cli.run("resume", code=0 if under_way else 1)
            await cli.run("verify", "--within", "20")
            if under_way:
                assert next_change(store, fourth) != change
        assert steps > 10
        messages = await traffic.check()
    print(f"resumed after steps up to {steps - stride}, {messages:,} messages, none lost")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_every_step_a_change_can_be_aborted(
    servers: list[RedisServer], store: str, stride: int
) -> None:
    """kill -9 after every `stride`th step: another process aborts it, all messages arrive.

    What was finished is kept, and a rollback leads back to the former table.
    """
    cli = CommandLine(store)
    *three, fourth = named(servers)
    await cli.run("init", *three)
    async with traffic_on(store) as traffic:
        for steps in range(1, STEPS_AT_MOST, stride):
            before = stored(store)
            if not await cli.killed_after(steps, *next_change(store, fourth)):
                break
            under_way = stored(store).change is not None
            await cli.run("abort", "--yes", code=0 if under_way else 1)
            await cli.run("verify", "--within", "20")
            if stored(store).table != before.table:
                await cli.run("rollback", "--yes", "--step", STEP)
            after = stored(store)
            assert (after.table, after.shards) == (before.table, before.shards)
        assert steps > 10
        messages = await traffic.check()
    print(f"aborted after steps up to {steps - stride}, {messages:,} messages, none lost")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_an_abort_that_is_killed_can_be_ended(servers: list[RedisServer], store: str) -> None:
    """kill -9 of the abort of a committed round, after each step: `resume` undoes it to its end."""
    cli = CommandLine(store)
    *three, fourth = named(servers)
    await cli.run("init", *three)
    before, undoing = stored(store), 0
    async with traffic_on(store) as traffic:
        for steps in range(1, STEPS_AT_MOST):
            async with cli.running(*next_change(store, fourth), "--json") as running:
                await running.until(lambda line: line.get("stage") == "committed")
                running.kill()
                await running.ended()
            if not await cli.killed_after(steps, "abort", "--yes"):
                break
            change = stored(store).change
            undoing += change is not None and change.aborting
            await cli.run("resume", code=1 if change is None else 0)
            await cli.run("verify", "--within", "20")
            if stored(store).table != before.table:  # the round had come to its end before
                await cli.run("rollback", "--yes", "--step", STEP)
            assert (stored(store).table, stored(store).shards) == (before.table, before.shards)
        assert undoing
        messages = await traffic.check()
    print(f"an abort killed after each of {steps - 1} steps, {messages:,} messages, none lost")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_shard_that_dies_during_a_change(tmp_path: Path) -> None:
    """Its slots go to the others, the change is paused, and goes on with what is left."""
    store = (tmp_path / "topology.json").as_uri()
    cli = CommandLine(store)
    with start_shards(4) as servers:
        *three, fourth = named(servers)
        await cli.run("init", *three)
        add = ("shard", "add", fourth, "--yes", "--step", "300", "--patience", "100", "--json")
        async with cli.running(*add) as driving:
            await driving.until(lambda line: line.get("stage") == "prepared")
            servers[1].kill()
            await driving.until(lambda line: "b" in line.get("shards", ()))
            await cli.run("shard", "mark", "down", "b", "--yes")
            assert await driving.ended() == 4
            assert "paused" in driving.errors
        await cli.run("resume")
        await cli.run("verify")
        after = stored(store)
        assert after.table.counts().keys() == {"a", "c", "d"}
        servers[1].start()
        await cli.run("shard", "mark", "up", "b", "--yes", "--step", "4096")
        assert set(stored(store).table.counts().values()) == {1024}
