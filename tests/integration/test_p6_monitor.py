"""P6 without an operator: monitors watch the shards of a loaded site, and mend what is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from cluster_layer.names import inbox_name
from tests.support.command_line import Running
from tests.support.loads import Load, Records, Shape, Verdict, served_again_s, verdict_of
from tests.support.proxy import TcpProxy
from tests.support.sites import Site, site
from tests.support.waiting import eventually_async
from tests.support.zookeeper import ZooKeeperServer
from topology.history import Entry, Kind
from topology.model import ShardState, Topology
from topology.monitor import LEADER_LOCK, MONITOR
from topology.stores import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SHAPE = Shape(writes_per_s=600, direct_tasks=3, groups=6, mixed_tasks=1)
HEAL_S = 5.0
ALLOWANCE_S = 7.0  # for a machine that does other things as well
QUIET_S = 3.0
WITHIN_S = 60.0


@pytest.fixture
def three(zookeeper: ZooKeeperServer) -> Iterator[Site]:
    with site(zookeeper.hosts, 3) as made:
        yield made


@asynccontextmanager
async def monitors(three: Site, count: int = 2) -> AsyncIterator[dict[int, Running]]:
    """Process id -> a monitor with default settings, except for the quiet time."""
    async with AsyncExitStack() as opened:
        running = {}
        for number in range(count):
            words = ("monitor", "--name", f"m{number}", "--quiet-time", str(QUIET_S), "--json")
            one = await opened.enter_async_context(three.cli.running(*words))
            running[one.process.pid] = one
        await _until(lambda: _leader(three) in running)
        yield running


async def _until(condition: object, within_s: float = WITHIN_S) -> None:
    """The condition blocks for as long as a store takes."""
    await eventually_async(lambda: asyncio.to_thread(condition), within_s)  # type: ignore[arg-type]


def _leader(three: Site) -> int | None:
    """Process id of the monitor that leads."""
    with closing(open_store(three.store)) as store:
        holder = store.holder(LEADER_LOCK)
    return None if holder is None else holder.operator.pid


def _entries(three: Site, *kinds: Kind) -> list[Entry]:
    return [entry for entry in three.history() if entry.kind in kinds]


def _is(three: Site, shard: str, state: ShardState) -> bool:
    return three.topology().shard(shard).state is state


def _at(topology: Topology, load: Load, shard: str) -> list[str]:
    """Everything in the load's traffic that has its home there."""
    return [
        target
        for target in load.traffic.targets()
        if topology.shard_of(inbox_name(target)).id == shard
    ]


def _slowest(load: Load, records: Records, since_s: float, targets: list[str]) -> float:
    """When the last of these names was served again."""
    served = served_again_s(load.traffic, records, since_s, targets)
    target = max(served, key=lambda name: served[name])
    print(f"{len(served)} names, the last of them, {target}, after {served[target]:.1f} s")
    return served[target]


async def _finished(load: Load) -> tuple[Records, Verdict]:
    records = await load.finish()
    verdict = verdict_of(load.traffic, records)
    print(verdict)
    for mishap in (*verdict.duplicated, *verdict.disordered, *verdict.uncalled)[:9]:
        print(mishap)
    return records, verdict


async def test_the_names_of_a_killed_shard_are_served_by_the_others(
    three: Site, tmp_path: Path
) -> None:
    """kill -9: within seconds, nothing twice; it returns by a change that loses nothing."""
    async with (
        monitors(three),
        Load(tmp_path / "load", [three.config()] * 4, SHAPE) as load,
    ):
        lost = _at(three.topology(), load, "s1")
        load.begin()
        await asyncio.sleep(2)
        three.servers["s1"].kill()
        killed_s = time.monotonic()
        await _until(lambda: _is(three, "s1", ShardState.DOWN))
        print(f"marked as down after {time.monotonic() - killed_s:.1f} s")
        await asyncio.sleep(4)
        (marked,) = _entries(three, Kind.MARKED_DOWN)
        assert marked.operator.user == MONITOR
        assert marked.evidence["shards"] == ["s1"]
        assert marked.evidence["evidence"]["s1"]["observers"] >= 5
        three.servers["s1"].start()
        returned_s = time.monotonic()
        await _until(lambda: _entries(three, Kind.FINISHED))
        print(f"taken back {time.monotonic() - returned_s:.1f} s after its return")
        assert _is(three, "s1", ShardState.UP)
        assert _entries(three, Kind.BEGUN)[-1].operator.user == MONITOR
        await asyncio.sleep(1)
        records, verdict = await _finished(load)
    assert _slowest(load, records, killed_s, lost) < HEAL_S + ALLOWANCE_S
    assert verdict.unharmed
    assert not verdict.within(returned_s, float("inf")).lost


async def test_a_shard_that_was_stopped_delivers_nothing_beside_the_others(
    three: Site, tmp_path: Path
) -> None:
    """SIGSTOP, and SIGCONT when its names live elsewhere: what it still has reaches nobody."""
    async with (
        monitors(three),
        Load(tmp_path / "load", [three.config()] * 4, SHAPE) as load,
    ):
        lost = _at(three.topology(), load, "s2")
        load.begin()
        await asyncio.sleep(2)
        three.servers["s2"].pause()
        stopped_s = time.monotonic()
        try:
            await _until(lambda: _is(three, "s2", ShardState.DOWN))
            await asyncio.sleep(3)
        finally:
            three.servers["s2"].resume()
        resumed_s = time.monotonic()
        await _until(lambda: _entries(three, Kind.FINISHED))
        await asyncio.sleep(1)
        records, verdict = await _finished(load)
    assert [entry.evidence["shards"] for entry in _entries(three, Kind.MARKED_DOWN)] == [["s2"]]
    assert _slowest(load, records, stopped_s, lost) < HEAL_S + ALLOWANCE_S
    assert verdict.unharmed
    assert not verdict.within(resumed_s, float("inf")).lost


async def test_another_monitor_takes_over_and_none_goes_too_far(three: Site) -> None:
    """Leader and shard are killed together: another monitor marks it as down, and no second one.

    It does not wait until ZooKeeper has ended the leader's session.
    """
    async with monitors(three) as running:
        first = _leader(three)
        assert first is not None
        running[first].kill()
        three.servers["s0"].kill()
        killed_s = time.monotonic()
        await _until(lambda: _is(three, "s0", ShardState.DOWN))
        print(f"marked as down after {time.monotonic() - killed_s:.1f} s")
        await _until(lambda: _leader(three) not in (first, None))
        print(f"another one leads {time.monotonic() - killed_s:.1f} s after the leader's death")
        three.servers["s1"].kill()
        await _until(lambda: _entries(three, Kind.WITHHELD))
        assert _is(three, "s1", ShardState.UP)
        (marked,) = _entries(three, Kind.MARKED_DOWN)
        (withheld,) = _entries(three, Kind.WITHHELD)
    assert marked.operator.pid == withheld.operator.pid == _other(running, first)
    assert "2 of 3 shards would be down, and at most 1 may be" in withheld.summary
    assert set(withheld.evidence["evidence"]) == {"s1"}


def _other(running: dict[int, Running], first: int) -> int:
    (pid,) = running.keys() - {first}
    return pid


async def test_a_shard_cut_off_from_half_of_the_processes_stays_and_it_is_told_why(
    three: Site, tmp_path: Path
) -> None:
    """Two of four cannot reach it, the monitors and the others can; nothing is split."""
    with TcpProxy("127.0.0.1", three.servers["s1"].port) as proxy:
        through = three.config(addresses={"s1": proxy.url})
        configs = [three.config(), three.config(), through, through]
        async with monitors(three), Load(tmp_path / "load", configs, SHAPE) as load:
            load.begin()
            await asyncio.sleep(1)
            proxy.refuse()
            proxy.cut()
            await _until(lambda: _entries(three, Kind.LEFT_ALONE))
            proxy.heal()
            healed_s = time.monotonic()
            await asyncio.sleep(4)
            records, verdict = await _finished(load)
    (entry,) = _entries(three, Kind.LEFT_ALONE)
    print(entry.summary)
    assert entry.operator.user == MONITOR
    assert "2 of 6 observers cannot reach it, the one who judges can" in entry.summary
    cut_off = {process.pid for process in load.processes[2:]}
    assert len(entry.evidence["evidence"]["s1"]["without"]) == len(cut_off)
    assert not _entries(three, Kind.MARKED_DOWN)
    assert three.topology().epoch == 1
    assert verdict.unharmed
    assert not verdict.within(healed_s + 2, float("inf")).lost
    served = served_again_s(load.traffic, records, healed_s, _at(three.topology(), load, "s1"))
    assert max(served.values()) < HEAL_S + ALLOWANCE_S
