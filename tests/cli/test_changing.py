"""Changing the topology of real shards by the command line, and what is refused."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from cluster_layer.cli.main import main
from cluster_layer.embedded import RedisServer, start_shards
from tests.support.command_line import CommandLine, Line
from tests.support.layers import unique_prefix
from tests.support.stored import stored
from tests.support.waiting import eventually_async
from tests.support.workers import Worker, member
from tests.support.zookeeper import ZooKeeperServer
from topology.history import Holder
from topology.model import Operator, ShardState
from topology.stores import open_store

ADA = Holder(Operator("ada", "ops-9", 4711), 1_700_000_000.0)


#: Many processes, one after the other.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    """Four of their own: the shards of other tests are of other clusters."""
    with start_shards(4) as started:
        yield started


@pytest.fixture
def named(servers: list[RedisServer]) -> list[str]:
    return [f"{name}={server.url}" for name, server in zip("abcd", servers, strict=True)]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "topology.json").as_uri()


@pytest.fixture
async def cli(store: str, named: list[str]) -> CommandLine:
    """With a topology of the first three shards."""
    made = CommandLine(store)
    await made.run("init", *named[:3])
    return made


def member_of(store: str) -> AbstractAsyncContextManager[Worker]:
    """Another process that takes part."""
    return member({"topology": store, "prefix": unique_prefix()})


def is_held(line: Line) -> bool:
    return bool(line.get("holds"))


async def test_a_saved_plan_is_executed_as_it_is_or_not_at_all(
    cli: CommandLine, store: str, named: list[str], tmp_path: Path
) -> None:
    """plan changes nothing and keeps secrets from others; apply does what the file says, once."""
    before, file = stored(store), tmp_path / "the.plan"
    (planned,) = await cli.run("plan", "--add", named[3], "--weight", "a=2", "--out", str(file))
    assert stored(store) == before
    assert file.stat().st_mode & 0o777 == 0o600
    (shown,) = await cli.run("apply", str(file), "--dry-run")
    assert (shown["shards"], stored(store)) == (planned["shards"], before)

    lines = await cli.run("apply", str(file), "--yes")
    assert lines[-1]["outcome"] == "finished"
    after = stored(store)
    counts = {shard["id"]: shard["slots_after"] for shard in planned["shards"]}
    assert after.table.counts() == counts
    assert after.change is None
    await cli.run("verify")
    await cli.run("apply", str(file), "--yes", code=1)
    assert stored(store) == after


async def test_a_drained_shard_can_be_removed(
    cli: CommandLine, store: str, named: list[str]
) -> None:
    """It has no slots any more, so nobody needs it."""
    before = stored(store).table.counts()
    await cli.run("shard", "add", named[3], "--yes", "--step", "4096")
    await cli.run("shard", "drain", "d", "--yes", "--step", "4096")
    lines = await cli.run("shard", "remove", "d", "--yes")
    assert lines[-1]["outcome"] == "finished"
    assert [shard.id for shard in stored(store).shards] == ["a", "b", "c"]
    assert stored(store).table.counts() == before


async def test_each_verb_moves_what_it_says(cli: CommandLine, store: str, named: list[str]) -> None:
    """weight, drain, mark, remove, rollback: the slots are where they belong afterwards."""
    await cli.run("shard", "weight", "a", "2", "--yes", "--step", "4096")
    assert stored(store).table.counts() == {"a": 2048, "b": 1024, "c": 1024}
    await cli.run("shard", "drain", "b", "--yes", "--step", "4096")
    assert stored(store).shard("b").state is ShardState.DRAINING
    assert "b" not in stored(store).table.counts()
    await cli.run("shard", "mark", "up", "b", "--yes", "--step", "4096")
    assert stored(store).table.counts() == {"a": 2048, "b": 1024, "c": 1024}
    before = stored(store)
    await cli.run("shard", "remove", "b", "--yes", "--step", "4096")
    assert {shard.id for shard in stored(store).shards} == {"a", "c"}
    await cli.run("rollback", "--yes", "--step", "4096")
    assert (stored(store).table, stored(store).shards) == (before.table, before.shards)
    await cli.run("verify")
    told = await cli.run("history")
    kinds = [entry["kind"] for entry in told]
    assert kinds == ["created", *["begun", "finished"] * 5]


async def test_a_dry_run_changes_nothing(
    cli: CommandLine, store: str, named: list[str], servers: list[RedisServer]
) -> None:
    """Each verb shows its plan and leaves the store, the history and the shards as they are."""
    fourth: Any = redis.Redis.from_url(servers[3].url, protocol=2)
    fourth.flushall()
    before, history = stored(store), await cli.run("history")
    for arguments in (
        ("shard", "add", named[3]),
        ("shard", "drain", "a"),
        ("shard", "remove", "a"),
        ("shard", "weight", "a", "3"),
        ("plan", "--balance"),
    ):
        options = () if arguments[0] == "plan" else ("--dry-run",)
        (line,) = await cli.run(*arguments, *options)
        assert line["event"] == "plan"
    await cli.run("shard", "mark", "down", "a", "--dry-run", "--force", "answers")
    await cli.run("init", named[3], "--dry-run", code=1)
    assert (stored(store), await cli.run("history")) == (before, history)
    assert fourth.dbsize() == 0
    fourth.close()


async def test_what_there_is_nothing_to_do_for(cli: CommandLine, store: str) -> None:
    """A plan that changes nothing is not executed; without a change there is none to go on with."""
    before = stored(store)
    assert (await cli.run("shard", "weight", "a", "1", "--yes"))[-1]["slots"] == 0
    await cli.run("resume", code=1)
    await cli.run("pause", code=1)
    await cli.run("throttle", "5", code=1)
    await cli.run("abort", "--yes", code=1)
    await cli.run("rollback", "--yes", code=1)
    assert (await cli.run("progress"))[-1]["change"] is None
    assert stored(store) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("shard", "remove", "z", "--yes"),
        ("shard", "add", "no-url", "--yes"),
        ("shard", "add", "a=redis://elsewhere", "--yes"),
        ("shard", "add", "redis://elsewhere"),
        ("shard", "remove", "a", "--yes", "--force", "everything"),
        ("plan",),
        ("apply", "/nowhere/the.plan", "--yes"),
    ],
)
async def test_wrong_usage(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    """Also: nobody is there to be asked, and --yes is missing."""
    await cli.run(*arguments, code=2)


async def test_a_shard_that_cannot_be_reached_is_refused_and_can_be_forced(
    cli: CommandLine, store: str
) -> None:
    """Forced, the change waits for the shard, is paused when patience ends, and can be aborted."""
    before = stored(store)
    add = ("shard", "add", "d=redis://127.0.0.1:1", "--yes")
    async with cli.running(*add, "--json") as running:
        assert await running.ended() == 1
        assert "--force reachable" in running.errors
    assert stored(store) == before
    lines = await cli.run(*add, "--force", "reachable", "--patience", "0.5", code=4)
    assert "d" in lines[-1]["shards"]
    assert stored(store).change is not None
    paused = (await cli.run("progress"))[-1]
    assert "shard d" in paused["change"]["paused"]
    await cli.run("shard", "weight", "a", "2", "--yes", code=1)  # one change at a time
    await cli.run("abort", "--yes")
    await cli.run("verify")
    assert (stored(store).table, stored(store).shards) == (before.table, before.shards)


async def test_a_shard_that_lives_is_not_marked_as_down_by_mistake(
    cli: CommandLine, store: str
) -> None:
    """Only when forced; `mark up` brings it back by a plan."""
    await cli.run("shard", "mark", "down", "b", "--yes", code=1)
    assert stored(store).shard("b").state is ShardState.UP
    await cli.run("shard", "mark", "down", "b", "--yes", "--force", "answers")
    assert stored(store).shard("b").state is ShardState.DOWN
    assert "b" not in stored(store).table.counts()
    await cli.run("shard", "mark", "up", "b", "--yes", "--step", "4096")
    assert stored(store).table.counts()["b"] > 1000
    await cli.run("verify")


async def test_a_second_operator_is_told_who_is_at_work(
    cli: CommandLine, store: str, named: list[str]
) -> None:
    """Who holds the lock is named; --steal takes it."""
    first = open_store(store)
    try:
        lock = first.lock("operator", ADA)
        add = ("shard", "add", named[3], "--yes", "--json", "--step", "4096")
        async with cli.running(*add) as second:
            assert await second.ended() == 1
            assert "ada@ops-9, pid 4711" in second.errors
            assert "--steal" in second.errors
        assert "ada" in (await cli.run("progress"))[0]["holder"]
        await cli.run(*add[:-3], "--step", "4096", "--steal")
        assert not lock.held()
    finally:
        first.close()


async def test_a_stopped_process_is_named_and_the_operator_decides(
    cli: CommandLine, store: str, named: list[str]
) -> None:
    """It holds the change up; others see it, throttle and pause; `--without` goes on."""
    async with member_of(store) as worker:
        add = ("shard", "add", named[3], "--yes", "--json", "--step", "512", "--patience", "600")
        async with cli.running(*add) as driving:
            await driving.until(lambda line: line["event"] == "begun")
            worker.stop()
            held = await driving.until(is_held)
            (hold,) = held["holds"]
            assert hold["pid"] == worker.pid
            (hold,) = (await cli.run("progress"))[-1]["holds"]
            assert hold["pid"] == worker.pid
            await cli.run("throttle", "1024")
            await cli.run("pause", "--reason", "lunch")
            assert await driving.ended() == 4
            assert "resume" in driving.errors
        change = (await cli.run("progress"))[-1]["change"]
        assert (change["paused"], change["step"]) == ("lunch", 1024)
        await cli.run("resume", "--without", hold["process"])
        assert stored(store).table.counts()["d"] == 1024
        told = await cli.run("history")
        kinds = [entry["kind"] for entry in told]
        assert {"throttled", "paused", "resumed", "went on without"} <= set(kinds)
        worker.go_on()
        await cli.run("verify", "--within", "20")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_leaves_a_change_that_can_be_resumed(
    cli: CommandLine, store: str, named: list[str], number: signal.Signals
) -> None:
    """It says so and lets go of the lock at once."""
    async with member_of(store) as worker:
        add = ("shard", "add", named[3], "--yes", "--json", "--patience", "600")
        async with cli.running(*add) as driving:
            await driving.until(lambda line: line["event"] == "begun")
            worker.stop()
            await driving.until(is_held)
            driving.signal(number)
            assert await driving.ended() == 4
            assert "interrupted" in driving.errors
            assert "resume" in driving.errors
        worker.go_on()
        await cli.run("resume")
        await cli.run("verify", "--within", "20")


async def test_an_abort_while_somebody_drives(
    cli: CommandLine, store: str, named: list[str]
) -> None:
    """Who drives undoes the round; who asked for it sees it end."""
    before = stored(store)
    async with member_of(store) as worker:
        add = ("shard", "add", named[3], "--yes", "--json", "--patience", "600")
        async with cli.running(*add) as driving:
            await driving.until(lambda line: line["event"] == "begun")
            worker.stop()
            await driving.until(is_held)
            async with cli.running("abort", "--yes", "--json") as aborting:
                watched = await aborting.until(lambda line: line["event"] in ("watching", "ended"))
                worker.go_on()
                assert await aborting.ended() == 0
                assert await driving.ended() == 4
                assert watched
        assert stored(store).change is None
        assert set(stored(store).shards) >= set(before.shards)
        await cli.run("verify", "--within", "20")


async def test_who_is_robbed_of_the_lock_stops(
    cli: CommandLine, store: str, named: list[str]
) -> None:
    """Another operator steals it and drives the change to its end."""
    async with member_of(store) as worker:
        add = ("shard", "add", named[3], "--yes", "--json", "--patience", "600")
        async with cli.running(*add) as driving:
            await driving.until(lambda line: line["event"] == "begun")
            worker.stop()
            await driving.until(is_held)
            await cli.run("resume", code=1)
            async with cli.running("resume", "--steal", "--json") as thief:
                await thief.until(is_held)
                assert await driving.ended() == 4
                assert "has taken the lock" in driving.errors
                worker.go_on()
                assert await thief.ended() == 0
        await cli.run("verify", "--within", "20")


async def test_on_zookeeper_a_killed_operator_is_followed_by_another(
    zookeeper: ZooKeeperServer, named: list[str]
) -> None:
    """The lock of one that was killed lasts as long as its session; --steal does not wait."""
    store = f"zookeeper://{zookeeper.hosts}/{unique_prefix()}"
    cli = CommandLine(store)
    await cli.run("init", *named[:3])
    assert await cli.killed_after(4, "shard", "add", named[3], "--yes", "--step", "512")
    await cli.run("resume", code=1)
    await cli.run("resume", "--steal")
    await cli.run("verify")
    assert stored(store).table.counts()["d"] == 1024
    await cli.run("rollback", "--yes")
    told = await cli.run("history")
    assert [entry["kind"] for entry in told][-1] == "finished"


async def test_a_lock_that_ended_with_its_session_is_taken_again(
    zookeeper: ZooKeeperServer, named: list[str], tmp_path: Path
) -> None:
    """Nobody else wanted it meanwhile, so whoever drives the change goes on."""
    store = f"zookeeper://{zookeeper.hosts}/{unique_prefix()}"
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"session_timeout_s": 1}))
    cli = CommandLine(store)
    await cli.run("init", *named[:3])
    looking = open_store(store)
    try:
        async with member_of(store) as worker:
            add = ("shard", "add", named[3], "--yes", "--json", "--patience", "600")
            async with cli.running(*add, "--store-options", str(options)) as driving:
                await driving.until(lambda line: line["event"] == "begun")
                worker.stop()
                await driving.until(is_held)
                driving.signal(signal.SIGSTOP)
                await eventually_async(lambda: looking.holder("operator") is None)
                driving.signal(signal.SIGCONT)
                await eventually_async(lambda: looking.holder("operator") is not None)
                worker.go_on()
                assert await driving.ended() == 0
                assert looking.holder("operator") is None
    finally:
        looking.close()


async def test_shards_may_be_reached_by_another_way(
    store: str, servers: list[RedisServer], tmp_path: Path
) -> None:
    """--addresses, as CONFIG addresses: the topology has the URLs that processes use."""
    cli = CommandLine(store)
    await cli.run("init", "a=redis://127.0.0.1:1", "b=redis://127.0.0.1:2")
    weigh = ("shard", "weight", "a", "3", "--yes", "--step", "4096")
    await cli.run(*weigh, code=1)
    ways = tmp_path / "ways.json"
    ways.write_text(json.dumps({"a": servers[0].url, "b": ["127.0.0.1", servers[1].port]}))
    await cli.run(*weigh, "--addresses", str(ways))
    await cli.run("verify", "--addresses", str(ways))
    await cli.run("check", "--addresses", str(ways), "--quiet", code=6)  # there is no monitor
    assert stored(store).shard("a").url == "redis://127.0.0.1:1"
    ways.write_text('{"a": 5}')
    await cli.run("verify", "--addresses", str(ways), code=2)


async def test_a_store_that_is_away_is_an_error_with_a_limit(tmp_path: Path) -> None:
    """Nothing was changed, and the exit code says so."""
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"timeout_s": 0.5}))
    cli = CommandLine("zookeeper://127.0.0.1:1/topology")
    began = time.monotonic()
    for verb in (("verify",), ("resume",), ("history",), ("shard", "remove", "a", "--yes")):
        await cli.run(*verb, "--store-options", str(options), code=1)
    assert time.monotonic() - began < 60


def test_no_password_is_ever_said(tmp_path: Path) -> None:
    """Neither in plans and tables nor in what cannot be reached."""
    store = (tmp_path / "topology.json").as_uri()
    url = "redis://user:s3cret@127.0.0.1:1"

    def said(*arguments: str) -> str:
        return CliRunner().invoke(main, [*arguments, "--store", store]).output

    outputs = [
        said("init", f"a={url}", "b=redis://127.0.0.1:2"),
        said("plan", "--remove", "a"),
        said("plan", "--remove", "a", "--json"),
        said("shard", "remove", "b", "--yes"),
        said("shard", "add", f"c={url}", "--yes"),
        said("verify", "--within", "0"),
        said("history", "--json"),
    ]
    assert all(outputs)
    assert not any("s3cret" in output for output in outputs)
