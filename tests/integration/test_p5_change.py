"""P5: planned changes under load lose nothing, whatever processes know and whenever they do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Line
from tests.support.loads import Load, Shape, Verdict, verdict_of
from tests.support.proxy import TcpProxy
from tests.support.sites import Site, site
from tests.support.waiting import eventually_async
from tests.support.zookeeper import ZooKeeperServer
from topology.history import Kind
from topology.model import Phase

SHAPE = Shape(writes_per_s=800, direct_tasks=3, groups=4, mixed_tasks=1)
STEP = "512"


@pytest.fixture
def three(zookeeper: ZooKeeperServer) -> Iterator[Site]:
    """Three shards, and a fourth server to be added."""
    with site(zookeeper.hosts, 3, spare=1) as made:
        yield made


async def _changed(three: Site, *words: str) -> None:
    lines = await three.cli.run("shard", *words, "--yes", "--step", STEP)
    assert lines[-1]["outcome"] == "finished"


async def _all_at_epoch(load: Load, three: Site) -> None:
    """Every process has heard of the newest topology."""
    epoch = three.topology().epoch
    for process in load.processes:
        await eventually_async(
            lambda process=process: process.told("now")["stats"]["epoch"] == epoch  # type: ignore[misc]
        )


async def _finished(load: Load, *, left_out: tuple[str, ...] = ()) -> Verdict:
    verdict = verdict_of(load.traffic, await load.finish(), left_out=left_out)
    print(verdict)
    for mishap in (*verdict.lost, *verdict.duplicated, *verdict.disordered, *verdict.uncalled)[:9]:
        print(mishap)
    return verdict


@pytest.mark.slow
async def test_nothing_is_lost_also_without_a_session(
    three: Site, zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    """A shard is added, one weighted, one drained and removed; one process has no ZooKeeper."""
    with TcpProxy("127.0.0.1", zookeeper.port) as proxy:
        cut_off = three.store.replace(zookeeper.hosts, f"127.0.0.1:{proxy.port}")
        configs = [three.config() for _ in range(3)]
        configs.append(three.config(topology={"url": cut_off}))
        async with Load(tmp_path / "load", configs, SHAPE) as load:
            proxy.refuse()
            proxy.cut()
            load.begin()
            await asyncio.sleep(1)
            await _changed(three, "add", f"s3={three.servers['s3'].url}")
            await _changed(three, "weight", "s0", "2")
            await _changed(three, "drain", "s1")
            await _changed(three, "remove", "s1")
            await asyncio.sleep(1)
            await _all_at_epoch(load, three)
            assert proxy.connections_open == 0
            verdict = await _finished(load)
    assert verdict.flawless
    assert {shard.id for shard in three.topology().shards} == {"s0", "s2", "s3"}


def _names(line: Line, pid: int) -> bool:
    """Whether a change waits for this process, which has been silent for some time."""
    return any(hold["pid"] == pid and "silent" in hold["reason"] for hold in line.get("holds", ()))


@pytest.mark.slow
@pytest.mark.parametrize("without", [False, True])
async def test_a_stopped_process_is_named_and_the_operator_decides(
    three: Site, tmp_path: Path, without: bool
) -> None:
    """The change waits for it, until it goes on, or until the operator goes on without it."""
    async with Load(tmp_path / "load", [three.config()] * 4, SHAPE) as load:
        load.begin()
        await asyncio.sleep(1)
        stopped = load.processes[1]
        name = (await stopped.stats())["process"]
        stopped.pause()
        add = ("shard", "add", f"s3={three.servers['s3'].url}", "--yes", "--step", "1024")
        # Where starting the command takes long, it is silent before the change has begun.
        force = ("--force", "processes")
        async with three.cli.running(*add, *force, "--json") as command:
            line = await command.until(lambda line: _names(line, stopped.pid))
            assert [(h["process"], h["host"]) for h in line["holds"]] == [
                (name, socket.gethostname())
            ]
            assert three.topology().phase is Phase.PREPARED
            if without:
                # The first machine is left; another one resumes.
                command.kill()
                await command.ended()
                await three.cli.run("resume", "--without", name, "--steal")
                kinds = [entry.kind for entry in three.history()]
                assert Kind.WENT_ON_WITHOUT in kinds
                assert three.topology().change is None
                stopped.resume()
            else:
                stopped.resume()
                assert await command.ended() == 0
        await asyncio.sleep(2)
        await _all_at_epoch(load, three)
        verdict = await _finished(load, left_out=(stopped.name,))
    print(f"{len(verdict.lost_by_left_out)} messages to the stopped process were lost")
    assert verdict.unharmed
    assert not verdict.lost
    if not without:
        assert not verdict.lost_by_left_out
