"""A change is driven to its end, by whomever, from any step on."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.topology.strategies import CLUSTER, OPERATOR
from topology.coordinator import Coordinator, Pace
from topology.decisions import Decisions
from topology.errors import LockHeld, StaleEpoch, StoreUnavailable, TopologyUnavailable
from topology.hashing import slot_of
from topology.history import Kind
from topology.memory_cluster import MemoryCluster, MemoryProcess
from topology.model import Operator, Shard, ShardState, Topology
from topology.planning import initial_topology, plan
from topology.ports import OperatorStore
from topology.progress import Doing, Outcome, Progress
from topology.stores import open_store
from topology.transitions import Stage

A, B, C, D = (Shard(x, f"redis://{x}") for x in "abcd")
FIRST = initial_topology([A, B, C], cluster=CLUSTER)
PACE = Pace(first_s=0.001, longest_s=0.005)
LOOKS = 300  # far more than any of these changes needs


class World:
    """A store, shards and processes, and as many operators as a test wants."""

    def __init__(self) -> None:
        self.url = f"memory://{uuid.uuid4().hex}"
        self.store: OperatorStore = open_store(self.url)
        self.store.write(FIRST, expected_epoch=None)
        self.cluster = MemoryCluster()
        self.processes = [
            self.cluster.add(MemoryProcess(f"p{i}", host=f"host-{i}", pid=100 + i))
            for i in range(2)
        ]
        for shard in FIRST.shards:
            self.cluster.shard(shard.id).topology = FIRST

    @property
    def topology(self) -> Topology:
        found = self.store.read()
        assert found is not None
        return found

    def decisions(self, operator: Operator = OPERATOR) -> Decisions:
        return Decisions(self.store, operator, wall_clock=lambda: 1_700_000_000.5)

    def coordinator(self, *without: str) -> Coordinator:
        return Coordinator(self.decisions(), self.cluster, without=without, pace=PACE)

    async def begun(self, *wanted: Shard, step: int = 400) -> Topology:
        now = self.topology
        return await self.decisions().begin(plan(now, wanted, "a change"), step=step)

    async def driven(self, *without: str) -> list[Progress]:
        """Everything that was told until the end."""
        told: list[Progress] = []
        async for progress in self.coordinator(*without).drive():
            told.append(progress)
            assert len(told) < LOOKS, told[-1]
        return told

    async def driven_until(self, condition: Callable[[Progress], bool], *without: str) -> Progress:
        """Stops driving at the first progress of this kind, which must come."""
        driving = self.coordinator(*without).drive()
        async for progress in driving:
            if condition(progress):
                await driving.aclose()  # type: ignore[attr-defined]
                return progress
            assert progress.outcome is None, progress
        raise AssertionError("it ended before")

    def kinds(self) -> list[Kind]:
        return [entry.kind for entry in self.store.history()]


@pytest.fixture
def world() -> World:
    return World()


def name_that_moves(before: Topology, after: Topology) -> str:
    return next(
        name
        for name in (f"name-{i}" for i in range(10_000))
        if before.shard_of(name).id != after.shard_of(name).id
    )


async def test_a_change_is_driven_to_its_end(world: World) -> None:
    """Rounds of the given size, all steps told, every shard and process at the last epoch."""
    await world.begun(A, B, C, D)
    told = await world.driven()
    assert told[-1].outcome is Outcome.FINISHED
    assert told[-1].tally.rounds == 3
    assert (told[-1].slots_done, told[-1].shards) == (0, {})
    done = [progress.slots_done for progress in told if progress.slots]
    assert done == sorted(done)
    assert max(done) == 1024
    doings = {progress.doing for progress in told}
    assert {Doing.CLEANING, Doing.COPYING, Doing.DECIDING, Doing.ENDED} <= doings
    topology = world.topology
    assert (topology.change, len(topology.shards)) == (None, 4)
    assert {shard.epoch for shard in world.cluster.shards.values()} == {topology.epoch}
    assert {process.epoch for process in world.processes} == {topology.epoch}
    assert world.kinds() == [Kind.BEGUN, Kind.FINISHED]


@pytest.mark.parametrize("wanted", [(A, B), (A, replace(B, state=ShardState.DRAINING), C)])
async def test_what_waits_in_queues_and_sets_moves_along(
    world: World, wanted: tuple[Shard, ...]
) -> None:
    """Messages that nobody reads and members that nobody took over are at the new home."""
    before = world.topology
    await world.begun(*wanted)
    during = world.topology
    assert during.change is not None
    channel = name_that_moves(before, replace(during, table=during.change.table, change=None))
    for number in range(5):
        world.cluster.push(during, channel, f"m{number}")
    world.cluster.store(during, channel, "somebody!x")
    told = await world.driven()
    assert (told[-1].tally.messages_moved, told[-1].tally.members_copied) == (5, 1)
    after = world.topology
    home = world.cluster.shard(after.shard_of(channel).id)
    assert home.members == {(channel, "somebody!x"): True}
    assert [world.cluster.pop(after, channel) for _ in range(6)] == [
        *(f"m{number}" for number in range(5)),
        None,
    ]


async def test_leftovers_on_the_target_are_cleaned_first(world: World) -> None:
    """What a shard has from another time is nobody's member."""
    await world.begun(A, B, C, D)
    stale = world.cluster.shard("d")
    change = world.topology.change
    assert change is not None
    group = next(f"g{i}" for i in range(10_000) if change.table.owners[slot_of(f"g{i}")] == "d")
    stale.members[group, "gone!x"] = True
    told = await world.driven()
    assert told[-1].tally.members_cleaned == 1
    assert stale.members == {}


async def test_it_is_told_which_process_holds_it_up(world: World) -> None:
    """With host, process id and reason; once that one has settled, the change goes on."""
    await world.begun(A, B, C, D, step=2000)
    world.processes[1].stopped = True
    world.processes[1].silent_s = 12.0
    held = await world.driven_until(lambda progress: bool(progress.holds))
    assert held.doing is Doing.SETTLING
    (hold,) = held.holds
    assert (hold.process, hold.host, hold.pid) == ("p1", "host-1", 101)
    assert hold.reason == "silent for 12 s, at epoch 0 of 3"
    assert world.topology.phase.value == "prepared"
    world.processes[1].stopped = False
    assert (await world.driven())[-1].outcome is Outcome.FINISHED


async def test_a_process_that_drains_slowly_is_waited_for_too(world: World) -> None:
    """The round ends only when the old home is drained, and the reason is told."""
    await world.begun(A, B, C, D, step=2000)
    await world.driven_until(lambda progress: progress.stage is Stage.COMMITTED)
    world.processes[0].lazy = True
    held = await world.driven_until(lambda progress: bool(progress.holds))
    assert (held.doing, held.holds[0].reason) == (Doing.DRAINING, "at work")
    world.processes[0].lazy = False
    world.processes[0].cut.add("c")
    held = await world.driven_until(lambda progress: bool(progress.holds))
    assert held.holds[0].reason == "cannot reach c (cut off)"


async def test_an_operator_can_go_on_without_a_process(world: World) -> None:
    """It is not waited for, at any step, and the history names it."""
    await world.begun(A, B, C, D, step=2000)
    world.processes[1].stopped = True
    assert (await world.driven("p1"))[-1].outcome is Outcome.FINISHED
    without = [e for e in world.store.history() if e.kind is Kind.WENT_ON_WITHOUT]
    assert [entry.evidence["processes"] for entry in without] == [["p1"], ["p1"]]
    assert "host-1, pid 101" in without[0].summary


async def test_dead_and_sending_processes_are_not_waited_for(world: World) -> None:
    """Only who lives and receives has something to settle."""
    world.processes[0].alive = False
    world.processes[1].receives = False
    world.processes[1].lazy = True
    world.cluster.add(MemoryProcess("m1", role="monitor", lazy=True))
    await world.begun(A, B, C, D)
    assert (await world.driven())[-1].outcome is Outcome.FINISHED


async def test_an_unreachable_shard_stops_a_round_and_is_named(world: World) -> None:
    """No commit without the fence on every shard."""
    await world.begun(A, B, C, D)
    world.cluster.shard("b").trouble = "connection refused"
    held = await world.driven_until(lambda progress: bool(progress.shards))
    assert held.shards == {"b": "connection refused"}
    assert held.doing is Doing.INSTALLING
    world.cluster.shard("b").trouble = None
    assert (await world.driven())[-1].outcome is Outcome.FINISHED


async def test_without_an_answer_from_every_shard_nobody_counts_as_gone(world: World) -> None:
    """A shard that has the topology, and is silent when it is asked who takes part."""
    await world.begun(A, B, C, D)
    driving = world.coordinator().drive()
    while (await anext(driving)).doing is not Doing.COPYING:
        pass
    for process in world.processes:
        process.alive = False  # as far as the other shards know
    world.cluster.shard("b").trouble = "no answer within 5 s"
    held = await anext(driving)
    assert held.trouble is not None
    assert "no answer within 5 s" in held.trouble
    assert held.stage is Stage.PREPARED
    world.cluster.shard("b").trouble = None
    async for progress in driving:
        held = progress
    assert held.outcome is Outcome.FINISHED


async def test_a_store_that_is_away_is_waited_for(world: World) -> None:
    """Traffic goes on, and so does the change as soon as it can."""
    await world.begun(A, B, C, D)
    store = world.store
    driving = world.coordinator().drive()
    assert not (await anext(driving)).waits
    read, outage = store.read, StoreUnavailable("nobody at home")

    def fail() -> Topology | None:
        raise outage

    store.read = fail  # type: ignore[method-assign]
    held = await anext(driving)
    assert (held.trouble, held.waits) == ("nobody at home", True)
    store.read = read  # type: ignore[method-assign]
    async for progress in driving:
        held = progress
    assert held.outcome is Outcome.FINISHED


async def test_without_a_topology_there_is_nothing_to_drive() -> None:
    """The error names the remedy."""
    world = World()
    world.store = open_store(f"memory://{uuid.uuid4().hex}")
    with pytest.raises(TopologyUnavailable, match="init"):
        await world.driven()


@pytest.mark.parametrize("wanted", [(A, B, C, D), (A, B), (replace(A, weight=3), B, C)])
@pytest.mark.parametrize("then", ["resume", "abort"])
async def test_killed_at_any_step_another_one_ends_it(wanted: tuple[Shard, ...], then: str) -> None:
    """Stopped after each number of steps there is: resumed it finishes, aborted it goes back."""
    steps = 0
    while True:
        steps += 1
        world = World()
        before = world.topology
        await world.begun(*wanted)
        channel = f"name-{steps}"
        for number in range(3):
            world.cluster.push(world.topology, channel, f"m{number}")
        driving = world.coordinator().drive()
        ended = False
        for _ in range(steps):
            ended = (await anext(driving)).outcome is not None
            if ended:
                break
        if ended:
            break
        if then == "abort" and world.topology.change is not None:
            await world.decisions(Operator("eve", "elsewhere", 9)).abort()
        last = (await world.driven())[-1]
        topology = world.topology
        assert topology.change is None
        if then == "resume":
            assert last.outcome is Outcome.FINISHED
            assert topology.shards == tuple(wanted)
        elif topology.table == before.table:
            assert topology.shards == before.shards
        received = [world.cluster.pop(topology, channel) for _ in range(4)]
        assert received == ["m0", "m1", "m2", None]
    print(f"{steps} steps")
    assert steps > 10


async def test_two_coordinators_at_once_do_no_harm(world: World) -> None:
    """Steps are taken once, whoever takes them, and each tells of the end."""
    await world.begun(A, B, C, D, step=100)
    one, other = world.coordinator().drive(), world.coordinator().drive()
    outcomes: list[Outcome | None] = []
    waiting = [one, other]
    while waiting:
        driving = waiting.pop(0)
        progress = await anext(driving)
        if progress.outcome is None:
            waiting.append(driving)
        else:
            outcomes.append(progress.outcome)
    assert outcomes == [Outcome.FINISHED, Outcome.FINISHED]
    assert world.kinds() == [Kind.BEGUN, Kind.FINISHED]


async def test_a_pause_lets_the_round_end_and_a_throttle_counts_from_the_next(
    world: World,
) -> None:
    """Paused in the middle of a committed round it ends between two; resumed it finishes."""
    await world.begun(A, B, C, D, step=400)
    await world.driven_until(lambda progress: progress.stage is Stage.COMMITTED)
    await world.decisions().pause("lunch")
    last = (await world.driven())[-1]
    assert (last.outcome, last.stage, last.slots_done) == (Outcome.PAUSED, Stage.BETWEEN, 400)
    await world.decisions().throttle(100)
    await world.decisions().resume()
    last = (await world.driven())[-1]
    assert (last.outcome, last.tally.rounds) == (Outcome.FINISHED, 7)
    assert world.kinds() == [
        Kind.BEGUN, Kind.PAUSED, Kind.THROTTLED, Kind.RESUMED, Kind.FINISHED,
    ]  # fmt: skip


async def test_a_pause_before_the_commit_keeps_the_old_homes(world: World) -> None:
    """Nothing is committed behind the operator's back."""
    await world.begun(A, B, C, D)
    await world.driven_until(lambda progress: progress.stage is Stage.PREPARED)
    await world.decisions().pause("lunch")
    last = (await world.driven())[-1]
    assert (last.outcome, last.stage) == (Outcome.PAUSED, Stage.PREPARED)


async def test_a_shard_that_is_lost_in_the_middle_pauses_the_change(world: World) -> None:
    """Its slots are served by others; resumed, the change ends without it."""
    await world.begun(A, B, C, D)
    await world.driven_until(lambda progress: progress.stage is Stage.COMMITTED)
    world.cluster.shard("a").trouble = "killed"
    await world.decisions().mark_down(world.cluster, ["a"], "shard a is lost", {"observers": 3})
    assert "a" not in world.topology.table.counts()
    last = (await world.driven())[-1]
    assert last.outcome is Outcome.PAUSED
    assert last.change is not None
    assert last.change.paused == "shard a is lost"
    await world.decisions().resume()
    assert (await world.driven())[-1].outcome is Outcome.FINISHED
    counts = world.topology.table.counts()
    assert set(counts) == {"b", "c", "d"}
    assert max(counts.values()) - min(counts.values()) <= 2
    marked = next(e for e in world.store.history() if e.kind is Kind.MARKED_DOWN)
    assert marked.evidence == {"shards": ["a"], "observers": 3}


async def test_a_plan_is_begun_exactly_or_not_at_all(world: World) -> None:
    """Another change came first: the plan is refused, and the history says so."""
    old = plan(world.topology, [A, B, C, D], "add d")
    await world.begun(replace(A, weight=1.0001), B, C)
    with pytest.raises(StaleEpoch):
        await world.decisions().begin(old, step=100)
    assert world.kinds() == [Kind.BEGUN, Kind.FINISHED]


async def test_a_change_that_moves_nothing_is_over_at_once(world: World) -> None:
    """It has its two lines of history all the same."""
    begun = await world.begun(replace(A, weight=1.00001), B, C)
    assert begun.change is None
    assert begun.shard("a").weight == 1.00001
    assert world.kinds() == [Kind.BEGUN, Kind.FINISHED]


async def test_a_rollback_leads_back_to_the_last_table(world: World) -> None:
    """Also after an abort in the middle; without a former table it is refused."""
    before = world.topology
    with pytest.raises(ValueError, match="nothing to go back to"):
        await world.decisions().rollback_plan()
    await world.begun(A, B, C, D)
    await world.driven_until(lambda progress: progress.tally.rounds == 1)
    await world.decisions().abort()
    assert world.topology.table != before.table
    back = await world.decisions().rollback_plan()
    assert back.summary == "roll back 'a change'"
    await world.decisions().begin(back, step=4096)
    await world.driven()
    assert (world.topology.table, world.topology.shards) == (before.table, before.shards)


async def test_the_second_operator_is_told_who_is_at_work(world: World) -> None:
    """A courtesy that can be declined."""
    eve = world.decisions(Operator("eve", "ops-2", 7))
    async with world.decisions().at_work():
        with pytest.raises(LockHeld, match=r"ada@ops-1\.example, pid 4711"):
            async with eve.at_work():
                raise AssertionError("two at work")
        async with eve.at_work(steal=True) as lock:
            assert lock.held()
    async with eve.at_work():
        pass


class LosesAnswers:
    """A store whose next writes are executed, or not, and not answered."""

    def __init__(self, store: OperatorStore, *executed: bool) -> None:
        self._store = store
        self._executed = list(executed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        if not self._executed:
            return self._store.write(topology, expected_epoch=expected_epoch)
        if self._executed.pop(0):
            self._store.write(topology, expected_epoch=expected_epoch)
        raise StoreUnavailable("the answer is lost", definite=False)


@pytest.mark.parametrize("executed", [(True,), (False,)])
async def test_a_lost_answer_leaves_no_doubt(world: World, executed: tuple[bool, ...]) -> None:
    """Written once more, the step is taken exactly once, whatever became of the first attempt."""
    world.store = LosesAnswers(world.store, *executed)  # type: ignore[assignment]
    await world.begun(A, B, C, D)
    assert world.topology.epoch == 2
    assert (await world.driven())[-1].outcome is Outcome.FINISHED


async def test_answers_that_stay_lost_are_told(world: World) -> None:
    """Nobody can tell whether the change has begun, and the error says that."""
    world.store = LosesAnswers(world.store, True, False)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable) as caught:
        await world.begun(A, B, C, D)
    assert not caught.value.definite
