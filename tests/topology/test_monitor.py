"""Monitors mark lost shards as down and take them back, each once, and only for good reasons."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest

from tests.support.waiting import eventually_async
from tests.topology.strategies import CLUSTER, OPERATOR
from topology import transitions
from topology.coordinator import Coordinator, Pace
from topology.decisions import Decisions
from topology.errors import StoreUnavailable
from topology.health import Limits
from topology.history import Entry, Kind
from topology.memory_cluster import MemoryCluster, MemoryProcess
from topology.model import Phase, Shard, ShardState, Topology
from topology.monitor import MONITOR, Event, Monitor, Schedule, What
from topology.planning import initial_topology, plan
from topology.ports import OperatorStore
from topology.progress import Outcome
from topology.stores import open_store

A, B, C, D = (Shard(x, f"redis://{x}") for x in "abcd")
FIRST = initial_topology([A, B, C], cluster=CLUSTER)
LIMITS = Limits(down_after_s=0.1, leave_after_s=0.2, gap_s=5, fresh_s=60, quiet_s=0.3)
SCHEDULE = Schedule(
    probe_every_s=0.01,
    probe_timeout_s=0.5,
    report_every_s=0.05,
    judge_every_s=0.01,
    read_every_s=0.02,
    look_every_s=0.05,
    return_step=500,
)


class World:
    """A store, three shards, two processes, and monitors that run until the test ends."""

    def __init__(self) -> None:
        self.store: OperatorStore = open_store(f"memory://{uuid.uuid4().hex}")
        self.store.write(FIRST, expected_epoch=None)
        self.cluster = MemoryCluster()
        for shard in FIRST.shards:
            self.cluster.shard(shard.id).topology = FIRST
        self.processes = [self.cluster.add(MemoryProcess(f"p{i}")) for i in range(2)]
        self.events: list[Event] = []
        self.running: dict[str, asyncio.Task[None]] = {}
        self.views: dict[str, MemoryProcess] = {}
        self.monitors: dict[str, Monitor] = {}

    def start(
        self,
        name: str = "m1",
        *,
        store: OperatorStore | None = None,
        limits: Limits = LIMITS,
        schedule: Schedule = SCHEDULE,
    ) -> Monitor:
        pid = len(self.views) + 1
        me = MemoryProcess(name, "watch-1", pid, role="monitor", receives=False)
        self.views[name] = me
        monitor = self.monitors[name] = Monitor(
            store or self.store,
            self.cluster.seen_by(me),
            name=name,
            host="watch-1",
            pid=pid,
            limits=limits,
            schedule=schedule,
            tell=self.events.append,
        )
        self.running[name] = asyncio.create_task(monitor.run())
        return monitor

    async def kill(self, name: str) -> None:
        """Nobody releases its lock."""
        self.monitors[name]._lock = None
        await self.stop(name)

    async def stop(self, name: str = "m1") -> None:
        task = self.running.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self.views[name].alive = False
        self.views[name].silent_s = 1000

    @property
    def topology(self) -> Topology:
        found = self.store.read()
        assert found is not None
        return found

    def state(self, shard: str) -> ShardState:
        return self.topology.shard(shard).state

    async def until(self, condition: Callable[[], object]) -> None:
        def checked() -> object:
            for task in self.running.values():
                assert not task.done(), task
            return condition()

        await eventually_async(checked)

    async def is_down(self, shard: str) -> None:
        await self.until(lambda: self.state(shard) is ShardState.DOWN)

    async def is_coming_back(self, shard: str) -> None:
        """It was lost, and its return is prepared, and goes no further: processes do not settle."""
        self.cluster.shard(shard).trouble = "connection refused"
        await self.is_down(shard)
        for process in self.processes:
            process.lazy = True
        self.cluster.shard(shard).trouble = None
        await self.until(lambda: self.topology.phase is Phase.PREPARED)

    async def has_looked(self, times: int = 30) -> None:
        """The leader has judged again and again since now, so that what it would do is done."""
        looked = 0
        for monitor in self.monitors.values():
            judged = monitor._judged

            async def counted(judged: Callable[[], object] = judged, **how: bool) -> object:
                nonlocal looked
                result = await judged(**how)  # type: ignore[misc]
                looked += 1
                return result

            monitor._judged = counted  # type: ignore[method-assign,assignment]
        await self.until(lambda: looked >= times)

    def told(self, what: What) -> list[Event]:
        return [event for event in self.events if event.what is what]

    def entries(self, kind: Kind) -> Sequence[Entry]:
        return [entry for entry in self.store.history() if entry.kind is kind]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with AsyncExitStack() as ending:
        yield made
        for name in list(made.running):
            ending.push_async_callback(made.stop, name)


async def test_a_lost_shard_is_marked_down_with_evidence(world: World) -> None:
    """Its slots go to the others, shards and processes know, and the history says why."""
    world.start()
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    await world.until(lambda: world.entries(Kind.MARKED_DOWN))
    (entry,) = world.entries(Kind.MARKED_DOWN)
    assert entry.operator.user == MONITOR
    assert "b: out of reach" in entry.summary
    assert entry.evidence["shards"] == ["b"]
    evidence = entry.evidence["evidence"]["b"]
    assert (evidence["reason"], evidence["observers"]) == ("connection refused", 3)
    assert sorted(evidence["without"]) == ["m1", "p0", "p1"]
    assert world.topology.table.counts() == {"a": 2048, "c": 2048}
    await world.until(lambda: world.cluster.shard("a").epoch == world.topology.epoch)
    assert {process.epoch for process in world.processes} == {world.topology.epoch}


async def test_one_of_several_leads_and_another_one_succeeds_it(world: World) -> None:
    """Only the leader decides; when it is gone, another one does."""
    first = world.start("m1")
    await world.until(lambda: first.leads)
    second = world.start("m2")
    await world.until(lambda: world.told(What.FOLLOWS))
    assert (first.leads, second.leads) == (True, False)
    await world.stop("m1")
    await world.until(lambda: second.leads)
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    assert len(world.told(What.MARKS_DOWN)) == 1


async def test_a_shard_that_dies_with_the_leader_is_marked_down_by_another_one(
    world: World,
) -> None:
    """Long before the leader's lock has expired; and nobody else leads until then."""
    first = world.start("m1")
    await world.until(lambda: first.leads)
    others = [world.start(name) for name in ("m2", "m3")]
    await world.until(lambda: len(world.told(What.FOLLOWS)) == 2)
    await world.kill("m1")
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    assert not any(monitor.leads for monitor in others)
    (told,) = world.told(What.STANDS_IN)[:1]
    assert "watch-1" in told.text
    await world.until(lambda: len(world.entries(Kind.MARKED_DOWN)) == 1)
    assert len(world.told(What.MARKS_DOWN)) == 1


async def test_nobody_stands_in_for_a_leader_that_still_reports(world: World) -> None:
    """It reaches the shard, and whoever leads has the last word."""
    leader = world.start("m1")
    await world.until(lambda: leader.leads)
    world.start("m2")
    await world.until(lambda: world.told(What.FOLLOWS))
    for name, view in world.views.items():
        if name != "m1":
            view.cut.add("b")
    for process in world.processes:
        process.cut.add("b")
    await world.has_looked()
    assert world.state("b") is ShardState.UP
    assert not world.told(What.STANDS_IN)


async def test_a_leader_that_is_cut_off_from_a_shard_does_nothing(world: World) -> None:
    """The processes reach it, and they are more; the suspicion is told."""
    world.start("m1")
    world.start("m2")
    await world.until(lambda: world.told(What.LEADS))
    leader = next(name for name, monitor in world.monitors.items() if monitor.leads)
    world.views[leader].cut.add("b")
    await world.until(lambda: world.told(What.SUSPECTS))
    await world.has_looked()
    assert world.state("b") is ShardState.UP
    evidence = world.told(What.SUSPECTS)[0].evidence["b"]
    assert (evidence["without"], evidence["reason"]) == ([leader], "cut off")


async def test_a_shard_that_half_of_all_reach_stays(world: World) -> None:
    """Half is no majority; with one more it is."""
    world.start("m1")
    world.cluster.add(MemoryProcess("p2"))
    await world.until(lambda: world.told(What.LEADS))
    world.views["m1"].cut.add("b")
    world.processes[0].cut.add("b")
    await world.until(lambda: world.told(What.SUSPECTS))
    await world.has_looked()
    assert world.state("b") is ShardState.UP
    await world.until(lambda: world.entries(Kind.LEFT_ALONE))
    (entry,) = world.entries(Kind.LEFT_ALONE)
    assert "2 of 4 observers cannot reach it" in entry.summary
    assert sorted(entry.evidence["evidence"]["b"]["without"]) == ["m1", "p0"]
    world.processes[1].cut.add("b")
    await world.is_down("b")


async def test_a_shard_that_only_others_cannot_reach_is_left_alone_and_told(world: World) -> None:
    """The leader reaches it, so it stays; who is cut off is in the history, once."""
    world.start("m1")
    world.cluster.add(MemoryProcess("p2"))
    await world.until(lambda: world.told(What.LEADS))
    world.processes[0].cut.add("b")
    await world.has_looked()
    assert not world.entries(Kind.LEFT_ALONE)
    world.processes[1].cut.add("b")
    await world.until(lambda: world.entries(Kind.LEFT_ALONE))
    await world.has_looked()
    (entry,) = world.entries(Kind.LEFT_ALONE)
    assert entry.summary == "b: 2 of 4 observers cannot reach it, the one who judges can"
    assert world.state("b") is ShardState.UP


async def test_a_shard_that_hangs_delays_no_judgement(world: World) -> None:
    """Whoever asks it would wait for its answer, so the leader asks the others alone."""
    world.start("m1")
    await world.until(lambda: world.told(What.LEADS))
    shard = world.cluster.shard("b")
    shard.trouble, shard.hangs_s = "no answer within 0.8 s", 1000
    await world.is_down("b")


async def test_a_shard_that_begins_to_hang_while_it_is_asked_delays_one_judgement(
    world: World,
) -> None:
    """The first question meets it unawares; it ends in time, and the next one leaves it out."""
    schedule = replace(SCHEDULE, ask_timeout_s=0.3)
    shard = world.cluster.shard("b")
    shard.hangs_s = 1000
    world.start("m1", schedule=schedule)
    await world.until(lambda: world.told(What.LEADS))
    shard.trouble = "no answer within 0.8 s"
    await world.is_down("b")


async def test_stopped_processes_have_no_say(world: World) -> None:
    """What somebody reported long ago says nothing about now."""
    for process in world.processes:
        process.silent_s = 100
        process.stopped = True
    world.start()
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")


async def test_when_everything_is_out_of_reach_nothing_is_done(world: World) -> None:
    """A monitor that sees everything down is cut off itself; it says so once."""
    world.start()
    await world.until(lambda: world.told(What.LEADS))
    for shard in "abc":
        world.cluster.shard(shard).trouble = "no route to host"
    await world.until(lambda: world.entries(Kind.WITHHELD))
    await world.has_looked()
    assert world.topology == FIRST
    (entry,) = world.entries(Kind.WITHHELD)
    assert "look whether this host is cut off" in entry.summary
    assert set(entry.evidence["evidence"]) == {"a", "b", "c"}


async def test_a_shard_comes_back_through_a_planned_change(world: World) -> None:
    """After the quiet time it gets exactly its share, cleaned before, and nobody else moves."""
    world.start()
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    world.cluster.shard("b").members["group", "gone!x"] = True
    world.cluster.shard("b").trouble = None
    await world.until(lambda: world.entries(Kind.FINISHED))
    counts = world.topology.table.counts()
    assert max(counts.values()) - min(counts.values()) <= 1
    assert world.state("b") is ShardState.UP
    (begun,) = world.entries(Kind.BEGUN)
    assert begun.summary.startswith("take back b, well for")
    await world.until(lambda: world.told(What.HAS_TAKEN_BACK))
    assert [event.text for event in world.told(What.HAS_TAKEN_BACK)] == [begun.summary]


async def test_a_shard_that_comes_and_goes_stays_down(world: World) -> None:
    """As long as it is never well for the quiet time."""
    world.start(limits=replace(LIMITS, quiet_s=3600))
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    for _ in range(3):
        world.cluster.shard("b").trouble = None
        await world.has_looked(5)
        world.cluster.shard("b").trouble = "connection refused"
        await world.has_looked(5)
    world.cluster.shard("b").trouble = None
    await world.has_looked()
    assert not world.entries(Kind.BEGUN)


async def test_what_an_operator_has_marked_down_stays_down(world: World) -> None:
    """It may be well; the operator had his reasons."""
    await Decisions(world.store, OPERATOR).mark_down(world.cluster, ["b"], "maintenance")
    world.start(limits=replace(LIMITS, quiet_s=0.05))
    await world.until(lambda: world.told(What.LEADS))
    await world.has_looked()
    assert world.state("b") is ShardState.DOWN


async def test_an_operators_change_is_paused_and_left_to_him(world: World) -> None:
    """When a shard is lost in its middle, the slots are re-homed, and no more than that."""
    decisions = Decisions(world.store, OPERATOR)
    await decisions.begin(plan(FIRST, [A, B, C, D], "add d"), step=300)
    world.start()
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    await world.has_looked()
    change = world.topology.change
    assert change is not None
    assert change.paused is not None
    assert change.paused.startswith("b: out of reach")
    assert change.operator == OPERATOR


async def test_a_return_that_a_killed_monitor_began_is_finished_by_another(world: World) -> None:
    """Whoever leads goes on with what monitors have begun."""
    await Decisions(world.store, replace(OPERATOR, user=MONITOR)).mark_down(
        world.cluster, ["b"], "lost"
    )
    down = world.topology
    back = [replace(shard, state=ShardState.UP) for shard in down.shards]
    dead = Decisions(world.store, replace(OPERATOR, user=MONITOR))
    await dead.begin(plan(down, back, "take back b"), step=500)
    async for progress in Coordinator(dead, world.cluster, pace=Pace(0.001)).drive():
        if progress.tally.rounds == 1:
            break
    world.start()
    await world.until(lambda: world.entries(Kind.FINISHED))
    assert world.topology.table.counts().keys() == {"a", "b", "c"}


async def test_a_shard_that_is_lost_while_it_comes_back_is_down_again(world: World) -> None:
    """What it was to get stays where it is; it comes back after another quiet time."""
    world.start()
    await world.is_coming_back("b")
    world.cluster.shard("b").trouble = "connection refused"
    await world.until(lambda: len(world.entries(Kind.MARKED_DOWN)) == 2)
    for process in world.processes:
        process.lazy = False
    await world.until(lambda: world.told(What.GIVES_UP))
    assert world.state("b") is ShardState.DOWN
    world.cluster.shard("b").trouble = None
    await world.until(lambda: world.told(What.HAS_TAKEN_BACK))
    assert world.topology.table.counts().keys() == {"a", "b", "c"}


async def test_a_return_goes_on_when_another_shard_is_lost(world: World) -> None:
    """Its goal is another one then, and in the end the shares are exact."""
    world.start()
    await world.is_coming_back("b")
    world.cluster.shard("c").trouble = "connection refused"
    await world.is_down("c")
    for process in world.processes:
        process.lazy = False
    await world.until(lambda: world.told(What.HAS_TAKEN_BACK))
    assert world.topology.table.counts() == {"a": 2048, "b": 2048}


async def test_a_return_that_an_operator_pauses_is_left_alone(world: World) -> None:
    """Until he lets it go on."""
    monitor = Decisions(world.store, replace(OPERATOR, user=MONITOR))
    await monitor.mark_down(world.cluster, ["b"], "lost")
    back = [replace(shard, state=ShardState.UP) for shard in world.topology.shards]
    await monitor.begin(plan(world.topology, back, "take back b"), step=500)
    operator = Decisions(world.store, OPERATOR)
    await operator.pause("not during the match")
    world.start()
    await world.until(lambda: world.told(What.LEADS))
    await world.has_looked()
    assert world.topology.change is not None
    await operator.resume()
    await world.until(lambda: world.entries(Kind.FINISHED))


class ComesAndGoes:
    """A store that is away while it is told to be."""

    def __init__(self, store: OperatorStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> object:
        if self.away:
            raise StoreUnavailable("nobody at home")
        return getattr(self._store, name)


async def test_without_a_store_a_monitor_waits_and_decides_when_it_is_back(world: World) -> None:
    """Its trouble is told, and its probes go on meanwhile."""
    store = ComesAndGoes(world.store)
    world.start(store=store)  # type: ignore[arg-type]
    await world.until(lambda: world.told(What.LEADS))
    store.away = True
    world.cluster.shard("b").trouble = "connection refused"
    await world.until(lambda: world.told(What.IS_IN_TROUBLE))
    await world.until(lambda: (world.views["m1"].told or {}).get("b") == "connection refused")
    assert world.state("b") is ShardState.UP
    store.away = False
    await world.is_down("b")


async def test_a_decision_on_an_old_topology_is_refused_and_made_anew(world: World) -> None:
    """Somebody else was faster: what he decided stands."""
    world.start(schedule=replace(SCHEDULE, read_every_s=3600))
    await world.until(lambda: world.told(What.LEADS))
    decisions = Decisions(world.store, OPERATOR)
    await decisions.begin(plan(FIRST, [A, B, C, D], "add d"), step=4096)
    async for progress in Coordinator(decisions, world.cluster, pace=Pace(0.001)).drive():
        done = progress.outcome
    assert done is Outcome.FINISHED
    world.cluster.shard("b").trouble = "connection refused"
    await world.is_down("b")
    assert world.topology.table.counts().keys() == {"a", "c", "d"}


def test_marking_down_twice_is_refused() -> None:
    """The transition itself sees to it that two leaders do not mark one shard twice."""
    lost = transitions.rehome(FIRST, ["b"], "lost")
    with pytest.raises(ValueError, match="down already"):
        transitions.rehome(lost, ["b"], "lost")
