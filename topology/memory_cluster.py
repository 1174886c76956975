"""Shards and processes in this process's memory: the twin of real ones, for tests and simulation.

Small, but faithful where a change of the topology can go wrong: shards are fenced by epochs, go
away and come back; queues are moved in batches with receipts; processes learn topologies from the
shards that they reach, settle when they serve every home, and can be stopped, killed, or cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from topology.errors import ShardUnreachable, StaleEpoch
from topology.hashing import slot_of
from topology.model import Shard, ShardState, Topology
from topology.ports import Leftovers, Moved, ProcessReport, ShardStatus
from topology.transitions import Stage, stage_of

BATCH = 2


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages on their way to the new home of their queue."""

    number: int
    channel: str
    messages: tuple[str, ...]
    target: str
    life: int


@dataclass(slots=True)
class MemoryShard:
    """What a shard holds; ``trouble`` is why nobody reaches it."""

    id: str
    trouble: str | None = None
    hangs_s: float = 0.0  #: how long who asks it waits for the answer that does not come
    life: int = 1
    topology: Topology | None = None
    members: dict[tuple[str, str], bool] = field(default_factory=dict)  #: false: a tombstone
    queues: dict[str, deque[str]] = field(default_factory=dict)
    batches: list[_Batch] = field(default_factory=list)
    receipts: set[int] = field(default_factory=set)

    @property
    def epoch(self) -> int:
        return 0 if self.topology is None else self.topology.epoch

    def restart(self) -> None:
        """It comes back blank, in another life."""
        self.life += 1
        self.topology = None
        self.members, self.queues = {}, {}
        self.batches, self.receipts = [], set()

    def require(self, topology: Topology) -> None:
        """What every script that writes begins with; who is newer brings the topology first."""
        self.require_reachable()
        if self.epoch > topology.epoch:
            raise StaleEpoch(topology.epoch, self.epoch)
        self.topology = topology

    def require_reachable(self) -> None:
        if self.trouble is not None:
            raise ShardUnreachable(self.id, self.trouble)


@dataclass(slots=True)
class MemoryProcess:
    """A process that sends and receives."""

    id: str
    host: str = "host-1"
    pid: int = 1
    role: str = "process"
    receives: bool = True
    alive: bool = True
    stopped: bool = False  #: as by SIGSTOP: it is there and does nothing
    lazy: bool = False  #: it learns, and does not settle
    cut: set[str] = field(default_factory=set)  #: shards that it cannot reach
    topology: Topology | None = None
    settled: int = 0
    silent_s: float = 0.0
    told: Mapping[str, str] | None = None  #: what a monitor reported that it cannot reach

    @property
    def epoch(self) -> int:
        return 0 if self.topology is None else self.topology.epoch

    def act(self, shards: Mapping[str, MemoryShard]) -> None:
        """Learn from the shards, bring to them what they do not know, settle."""
        if self.stopped or not self.alive:
            return
        reached = [shard for shard in shards.values() if self._reaches(shard)]
        known = [shard.topology for shard in reached if shard.topology is not None]
        newest = max([*known, *filter(None, [self.topology])], key=_epoch, default=None)
        if newest is None:
            return
        self.topology = newest
        for shard in reached:
            if shard.epoch < newest.epoch and shard.id in {s.id for s in newest.shards}:
                shard.topology = newest
        if not self.lazy and not self._missing(shards, newest):
            self.settled = newest.epoch

    def report(self, shards: Mapping[str, MemoryShard]) -> ProcessReport:
        missing: Mapping[str, str] = {}
        if self.told is not None:
            missing = self.told
        elif self.topology is not None:
            missing = self._missing(shards, self.topology)
        return ProcessReport(
            id=self.id,
            role=self.role,
            host=self.host,
            pid=self.pid,
            prefix="asgi",
            version="0",
            receives=self.receives,
            alive=self.alive,
            epoch=self.epoch,
            settled=self.settled,
            unreachable=missing,
            waiting_for=None,
            age_s=self.silent_s,
        )

    def trouble(self, shard: MemoryShard) -> str | None:
        """Why this process does not reach the shard; None: it does."""
        return "cut off" if shard.id in self.cut else shard.trouble

    def _reaches(self, shard: MemoryShard) -> bool:
        return self.trouble(shard) is None

    def _missing(self, shards: Mapping[str, MemoryShard], topology: Topology) -> dict[str, str]:
        up = [shard.id for shard in topology.shards if shard.state is not ShardState.DOWN]
        return {
            shard_id: trouble
            for shard_id in up
            if shard_id in shards and (trouble := self.trouble(shards[shard_id])) is not None
        }


class MemoryCluster:
    """Implements the port ``Cluster``; shards exist from when somebody first names them."""

    def __init__(self) -> None:
        self.shards: dict[str, MemoryShard] = {}
        self.running: dict[str, MemoryProcess] = {}
        self._batch_numbers = count(1)
        self._me = MemoryProcess("operator", role="operator", receives=False)

    def seen_by(self, observer: MemoryProcess) -> MemoryCluster:
        """The same cluster, from where this monitor or operator is."""
        view = MemoryCluster()
        view.shards, view.running = self.shards, self.running
        view._batch_numbers, view._me = self._batch_numbers, self.add(observer)
        return view

    # -- what tests and simulations do

    def shard(self, shard_id: str) -> MemoryShard:
        return self.shards.setdefault(shard_id, MemoryShard(shard_id))

    def add(self, process: MemoryProcess) -> MemoryProcess:
        self.running[process.id] = process
        return process

    def act(self) -> None:
        """Every process has a turn."""
        for process in self.running.values():
            process.act(self.shards)

    def push(self, topology: Topology, channel: str, message: str) -> None:
        """Send to a normal channel, as a process that knows this topology."""
        home = self.shard(topology.shard_of(channel).id)
        home.require(topology)
        home.queues.setdefault(channel, deque()).append(message)

    def pop(self, topology: Topology, channel: str) -> str | None:
        """Receive from a normal channel, at whatever homes this topology has."""
        for shard_id in _homes(topology, channel):
            shard = self.shard(shard_id)
            shard.require_reachable()
            queue = shard.queues.get(channel)
            if queue:
                return queue.popleft()
        return None

    def store(self, topology: Topology, group: str, channel: str) -> None:
        """Add a member, at all homes."""
        for shard_id in _homes(topology, group):
            shard = self.shard(shard_id)
            shard.require(topology)
            shard.members[group, channel] = True

    def leave(self, topology: Topology, group: str, channel: str) -> None:
        """Remove a member, at all homes; a tombstone keeps a copy from bringing it back."""
        prepared = stage_of(topology) is Stage.PREPARED
        for shard_id in _homes(topology, group):
            shard = self.shard(shard_id)
            shard.require(topology)
            if prepared and shard_id != topology.shard_of(group).id:
                shard.members[group, channel] = False
            else:
                shard.members.pop((group, channel), None)

    # -- the port

    async def install(self, topology: Topology, shards: Collection[str]) -> Mapping[str, str]:
        failed = {}
        for shard_id in shards:
            shard = self.shard(shard_id)
            trouble = self._me.trouble(shard)
            if trouble is not None:
                failed[shard_id] = trouble
            elif shard.epoch > topology.epoch:
                failed[shard_id] = f"it serves epoch {shard.epoch}, newer than {topology.epoch}"
            else:
                shard.topology = topology
        self.act()
        return failed

    async def processes(
        self,
        *,
        complete: bool = False,
        without: Collection[str] = (),
        within_s: float | None = None,
    ) -> Mapping[str, ProcessReport]:
        self.act()
        for shard in self.shards.values():
            if shard.hangs_s and shard.id not in without:
                await asyncio.sleep(min(shard.hangs_s, within_s or shard.hangs_s))
        newest = max(self.shards.values(), key=lambda shard: shard.epoch, default=None)
        if complete and newest is not None and newest.topology is not None:
            list(self._up(newest.topology))
        return {process.id: process.report(self.shards) for process in self.running.values()}

    async def clean_members(self, topology: Topology, shard: str, slots: Collection[int]) -> int:
        target = self.shard(shard)
        target.require(topology)
        found = [key for key in target.members if slot_of(key[0]) in slots]
        for key in found:
            del target.members[key]
        return len({group for group, _ in found})

    async def copy_members(self, topology: Topology) -> int:
        copied = 0
        for source in self._up(topology):
            for (group, channel), there in list(source.members.items()):
                slot = slot_of(group)
                target = topology.other_home(slot)
                if there and target is not None and topology.owner_of(slot).id == source.id:
                    shard = self.shard(target.id)
                    shard.require(topology)
                    copied += (group, channel) not in shard.members
                    shard.members.setdefault((group, channel), True)
        return copied

    async def move_queues(self, topology: Topology) -> Moved:
        moved = dropped = 0
        for source in self._up(topology):
            for batch in list(source.batches):
                one = self._settle_batch(topology, source, batch)
                moved, dropped = moved + one.moved, dropped + one.dropped
            for channel in list(source.queues):
                target = topology.shard_of(channel).id
                if target != source.id and source.id in _homes(topology, channel):
                    while source.queues.get(channel):
                        batch = self._take(topology, source, channel, target)
                        one = self._settle_batch(topology, source, batch)
                        moved, dropped = moved + one.moved, dropped + one.dropped
        return Moved(moved, dropped)

    async def leftovers(self, shard: str, slots: Collection[int]) -> Leftovers:
        found = self.shard(shard)
        found.require_reachable()
        waiting = {name: list(queue) for name, queue in found.queues.items() if queue}
        for batch in found.batches:
            waiting.setdefault(batch.channel, []).extend(batch.messages)
        waiting = {name: queue for name, queue in waiting.items() if slot_of(name) in slots}
        members = {group for group, _ in found.members if slot_of(group) in slots}
        return Leftovers(len(waiting), sum(map(len, waiting.values())), len(members))

    async def inspect(self, shard: Shard) -> ShardStatus:
        found = self.shard(shard.id)
        trouble = self._me.trouble(found)
        if trouble is not None:
            return ShardStatus(shard.id, trouble)
        return ShardStatus(
            shard.id,
            latency_s=0.0,
            version="7.0.0",
            role="master",
            replicas=0,
            incarnation=f"{found.life:016x}",
            epoch=found.epoch,
            memory_bytes=1_000_000,
            max_memory_bytes=0,
            max_memory_policy="noeviction",
            persistence="none",
            commands_per_s=0.0,
            connections=len(self.running),
            clock_offset_s=0.0,
            keys=len(found.members) + len(found.queues),
        )

    async def probe(self, shard: Shard, timeout_s: float) -> str | None:
        assert timeout_s > 0  # noqa: S101 - a shard in memory answers at once, or never
        return self._me.trouble(self.shard(shard.id))

    async def report(self, unreachable: Mapping[str, str]) -> None:
        self._me.told = dict(unreachable)

    async def close(self) -> None:
        return None

    # -- internals

    def _up(self, topology: Topology) -> Iterable[MemoryShard]:
        """All shards that are to be reached; ShardUnreachable if one is not."""
        for shard in topology.shards:
            if shard.state is not ShardState.DOWN:
                found = self.shard(shard.id)
                found.require_reachable()
                yield found

    def _take(self, topology: Topology, source: MemoryShard, channel: str, target: str) -> _Batch:
        """From the queue to a list of its own, on the old home."""
        source.require(topology)
        queue = source.queues[channel]
        # From the tail: each batch goes to the head of the new queue, before the one before it.
        messages = tuple(reversed([queue.pop() for _ in range(min(BATCH, len(queue)))]))
        if not queue:
            del source.queues[channel]
        number = next(self._batch_numbers)
        batch = _Batch(number, channel, messages, target, self.shard(target).life)
        source.batches.append(batch)
        return batch

    def _settle_batch(self, topology: Topology, source: MemoryShard, batch: _Batch) -> Moved:
        """To the head of the queue on the new home, with a receipt; or back, or away."""
        target = self.shard(batch.target)
        target.require(topology)  # from here on no older coordinator can push it
        arrived = batch.number in target.receipts
        same_life = target.life == batch.life
        source.require(topology)
        if same_life and not arrived:
            home = target if topology.shard_of(batch.channel).id == target.id else source
            home.queues.setdefault(batch.channel, deque()).extendleft(reversed(batch.messages))
            if home is target:
                target.receipts.add(batch.number)
        source.batches.remove(batch)
        lost = 0 if same_life else len(batch.messages)
        return Moved(len(batch.messages) - lost, lost)


def _homes(topology: Topology, name: str) -> list[str]:
    slot = slot_of(name)
    other = topology.other_home(slot)
    here = topology.owner_of(slot).id
    return [here] if other is None else [here, other.id]


def _epoch(topology: Topology) -> int:
    return topology.epoch
