"""What every implementation of the port ``Cluster`` promises to a coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from tests.contracts.shard_site import ShardSite
from tests.support.waiting import eventually_async
from tests.topology.strategies import CLUSTER, OPERATOR
from topology import transitions
from topology.errors import ClusterError
from topology.hashing import SLOTS, slot_of
from topology.memory_cluster import MemoryCluster, MemoryProcess
from topology.model import Shard, ShardState, Topology
from topology.planning import initial_topology, plan
from topology.ports import Cluster, ProcessReport

A, B = "a", "b"


class Site(Protocol):
    """A cluster of two shards that a test can use and spoil."""

    @property
    def cluster(self) -> Cluster: ...
    def shards(self) -> list[Shard]: ...
    async def push(self, topology: Topology, channel: str, message: str) -> None: ...
    async def pop(self, topology: Topology, channel: str) -> str | None: ...
    async def store(self, topology: Topology, group: str, member: str) -> None: ...
    async def leave(self, topology: Topology, group: str, member: str) -> None: ...
    async def members(self, shard: str, group: str) -> set[str]: ...
    async def cut(self, shard: str) -> None: ...
    async def heal(self, shard: str) -> None: ...
    async def restart(self, shard: str) -> None: ...
    async def close(self) -> None: ...


class MemorySite:
    """The twin."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.cluster.add(MemoryProcess("p1", host="host-1", pid=77))

    def shards(self) -> list[Shard]:
        return [Shard(A, "redis://a"), Shard(B, "redis://b")]

    async def push(self, topology: Topology, channel: str, message: str) -> None:
        self.cluster.push(topology, channel, message)

    async def pop(self, topology: Topology, channel: str) -> str | None:
        return self.cluster.pop(topology, channel)

    async def store(self, topology: Topology, group: str, member: str) -> None:
        self.cluster.store(topology, group, member)

    async def leave(self, topology: Topology, group: str, member: str) -> None:
        self.cluster.leave(topology, group, member)

    async def members(self, shard: str, group: str) -> set[str]:
        stored = self.cluster.shard(shard).members.items()
        return {member for (name, member), there in stored if name == group and there}

    async def cut(self, shard: str) -> None:
        self.cluster.shard(shard).trouble = "cut"

    async def heal(self, shard: str) -> None:
        self.cluster.shard(shard).trouble = None

    async def restart(self, shard: str) -> None:
        self.cluster.shard(shard).restart()

    async def close(self) -> None:
        await self.cluster.close()


@pytest.fixture(params=["memory", "shards"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    made: Site = MemorySite() if request.param == "memory" else await ShardSite(CLUSTER).open()
    yield made
    await made.close()


class Round:
    """The topologies of a round that moves everything from A to B; installed as a test goes on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        shards = site.shards()
        self.steady = initial_topology(shards, cluster=CLUSTER)
        wanted = [replace(shards[0], state=ShardState.DRAINING), shards[1]]
        self.now = transitions.begin(
            self.steady,
            plan(self.steady, wanted, "drain a"),
            change_id="1" * 16,
            operator=OPERATOR,
            started_at=1,
            step=SLOTS,
        )

    async def go(self, step: Callable[[Topology], Topology] | None = None) -> Topology:
        """Take a step, and bring it to both shards."""
        self.now = self.now if step is None else step(self.now)
        assert await self._site.cluster.install(self.now, [A, B]) == {}
        return self.now

    def name(self, home: str = A) -> str:
        """A name that has its home there before the round."""
        return next(
            name
            for name in (f"name-{i}" for i in range(1000))
            if self.steady.shard_of(name).id == home
        )

    @property
    def slots(self) -> tuple[int, ...]:
        """Those that move."""
        return self.steady.slots_of(A)


@pytest.fixture
async def moving(site: Site) -> Round:
    made = Round(site)
    await made.go()
    return made


async def test_a_topology_is_brought_to_shards(site: Site, moving: Round) -> None:
    """Those that are not reached are named, with the reason; the others serve it."""
    prepared = transitions.prepare(moving.now)
    await site.cut(B)
    missing = await site.cluster.install(prepared, [A, B])
    assert list(missing) == [B]
    assert missing[B]
    await site.heal(B)
    assert await site.cluster.install(prepared, [A, B]) == {}
    statuses = [await site.cluster.inspect(shard) for shard in site.shards()]
    assert [status.epoch for status in statuses] == [prepared.epoch] * 2


async def test_a_shard_that_serves_a_newer_topology_keeps_it(site: Site, moving: Round) -> None:
    """And is named: whoever wants the older one has not seen something."""
    await moving.go(transitions.prepare)
    missing = await site.cluster.install(moving.steady, [A])
    assert list(missing) == [A]
    assert (await site.cluster.inspect(site.shards()[0])).epoch == moving.now.epoch


async def test_only_leftovers_of_the_given_slots_are_cleaned(site: Site, moving: Round) -> None:
    """Other memberships on that shard stay."""
    group, other = moving.name(A), moving.name(B)
    await site.store(moving.now, other, "x!1")
    await site.cluster.install(moving.now, [A, B])
    swapped = replace(
        moving.now,
        table=replace(moving.now.table, owners=(B,) * SLOTS),
    )
    await site.store(swapped, group, "gone!1")  # as it was in another time
    assert await site.members(B, group) == {"gone!1"}
    assert await site.cluster.clean_members(moving.now, B, moving.slots) == 1
    assert await site.members(B, group) == set()
    assert await site.members(B, other) == {"x!1"}


async def test_a_clean_that_comes_late_is_refused(site: Site, moving: Round) -> None:
    """Once a shard serves the round's topology, what is there is no leftover."""
    before, group = moving.now, moving.name(A)
    prepared = await moving.go(transitions.prepare)
    await site.store(prepared, group, "x!1")
    with pytest.raises(ClusterError):
        await site.cluster.clean_members(before, B, moving.slots)
    assert await site.members(B, group) == {"x!1"}


async def test_members_are_copied_to_the_homes_to_come(site: Site, moving: Round) -> None:
    """Those of moving slots alone, once; whoever left in the meantime does not come back."""
    group, other = moving.name(A), moving.name(B)
    for member in ("stays!1", "leaves!1"):
        await site.store(moving.now, group, member)
    await site.store(moving.now, other, "x!1")
    prepared = await moving.go(transitions.prepare)
    await site.leave(prepared, group, "leaves!1")
    assert await site.cluster.copy_members(prepared) == 1
    assert await site.cluster.copy_members(prepared) == 0
    assert await site.members(B, group) == {"stays!1"}
    assert await site.members(A, group) == {"stays!1"}
    assert await site.members(A, other) == set()


async def test_a_copy_that_comes_late_is_refused(site: Site, moving: Round) -> None:
    """After the commit a member that left cannot be brought back."""
    group = moving.name(A)
    await site.store(moving.now, group, "leaves!1")
    prepared = await moving.go(transitions.prepare)
    committed = await moving.go(transitions.commit)
    await site.cluster.install(committed, [A, B])
    with pytest.raises(ClusterError):
        await site.cluster.copy_members(prepared)
    assert await site.members(B, group) == set()


async def test_queues_are_moved_in_their_order(site: Site, moving: Round) -> None:
    """Before what was sent to the new home already; what does not move stays."""
    channel, other = moving.name(A), moving.name(B)
    for number in range(7):
        await site.push(moving.now, channel, f"m{number}")
    await site.push(moving.now, other, "other")
    await moving.go(transitions.prepare)
    committed = await moving.go(transitions.commit)
    await site.push(committed, channel, "m7")
    moved = await site.cluster.move_queues(committed)
    assert (moved.moved, moved.dropped) == (7, 0)
    assert (await site.cluster.move_queues(committed)).moved == 0
    assert await everything(site, committed, channel) == [f"m{number}" for number in range(8)]
    assert await everything(site, committed, other) == ["other"]


async def test_leftovers_are_counted(site: Site, moving: Round) -> None:
    """Queues, their messages and groups with members, of the slots that are asked about."""
    channel, group = moving.name(A), moving.name(A)
    for number in range(3):
        await site.push(moving.now, channel, f"m{number}")
    await site.store(moving.now, group, "x!1")
    found = await site.cluster.leftovers(A, moving.slots)
    assert (found.queues, found.messages, found.members) == (1, 3, 1)
    found = await site.cluster.leftovers(A, [(slot_of(channel) + 1) % SLOTS])
    assert (found.queues, found.messages, found.members) == (0, 0, 0)


async def test_a_move_that_fails_half_way_is_ended_by_the_next(site: Site, moving: Round) -> None:
    """Whoever comes next finds the batch: nothing is lost, and nothing comes twice."""
    channel = moving.name(A)
    for number in range(3):
        await site.push(moving.now, channel, f"m{number}")
    await moving.go(transitions.prepare)
    committed = await moving.go(transitions.commit)
    await site.cut(B)
    with pytest.raises(ClusterError):
        await site.cluster.move_queues(committed)
    await site.heal(B)
    assert (await site.cluster.move_queues(committed)).moved <= 3
    assert (await site.cluster.leftovers(A, moving.slots)).queues == 0
    assert await everything(site, committed, channel) == ["m0", "m1", "m2"]


async def test_a_move_that_comes_late_is_refused(site: Site, moving: Round) -> None:
    """When the round was undone meanwhile, what is back home stays there."""
    channel = moving.name(A)
    await moving.go(transitions.prepare)
    committed = await moving.go(transitions.commit)
    undoing = await moving.go(transitions.abort)
    await site.push(undoing, channel, "m0")
    with pytest.raises(ClusterError):
        await site.cluster.move_queues(committed)
    assert await everything(site, undoing, channel) == ["m0"]


async def test_what_was_moved_comes_back_when_the_round_is_undone(
    site: Site, moving: Round
) -> None:
    """Nothing is left at the home that it does not have in the end."""
    channel = moving.name(A)
    await site.push(moving.now, channel, "m0")
    await moving.go(transitions.prepare)
    await site.cluster.move_queues(await moving.go(transitions.commit))
    undoing = await moving.go(transitions.abort)
    assert (await site.cluster.move_queues(undoing)).moved == 1
    assert (await site.cluster.leftovers(B, moving.slots)).queues == 0
    finished = await moving.go(transitions.finish)
    assert await everything(site, finished, channel) == ["m0"]


async def test_what_was_on_its_way_to_another_life_is_dropped(site: Site, moving: Round) -> None:
    """It may have been delivered there: better never than twice."""
    channel = moving.name(A)
    await site.push(moving.now, channel, "m0")
    await moving.go(transitions.prepare)
    committed = await moving.go(transitions.commit)
    assert (await site.cluster.move_queues(committed)).moved == 1
    await site.restart(B)
    await site.cluster.install(committed, [B])
    assert await everything(site, committed, channel) == []


async def test_shards_are_asked_how_they_are(site: Site, moving: Round) -> None:
    """A shard that is not reached has a reason, and nothing raises."""
    for shard in site.shards():
        status = await site.cluster.inspect(shard)
        assert status.reachable
        assert (status.shard, status.epoch) == (shard.id, moving.now.epoch)
        assert await site.cluster.probe(shard, 2.0) is None
    await site.cut(A)
    status = await site.cluster.inspect(site.shards()[0])
    assert not status.reachable
    assert await site.cluster.probe(site.shards()[0], 2.0)


async def test_processes_are_known_with_host_and_pid(site: Site, moving: Round) -> None:
    """What an operator needs to find the one that holds him up; also when a shard is away."""
    await site.cut(B)

    async def up_to_date() -> list[ProcessReport]:
        found = [report for report in (await site.cluster.processes()).values() if report.alive]
        return found if all(report.epoch == moving.now.epoch for report in found) else []

    for report in await eventually_async(up_to_date):
        assert report.role == "process"
        assert report.host
        assert report.pid > 0
        assert report.epoch == moving.now.epoch
        assert list(report.unreachable) in ([], [B])


async def everything(site: Site, topology: Topology, channel: str) -> list[str]:
    """All messages of a channel, in the order in which one reader gets them."""
    received = []
    while (message := await site.pop(topology, channel)) is not None:
        received.append(message)
    return received
