"""Drives a change through its rounds (docs/decisions/0006); any machine can, from any step on.

All that there is to know is in the topology and on the shards. What a coordinator remembers itself,
it remembers for one epoch only, and whoever forgets it does some of it again, which does no harm.
Each look decides on one step; nothing waits for ever: while there is something to wait for, whoever
drives the change is told what, and may go on without it, pause, abort, or stop driving.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from topology import transitions
from topology.decisions import Decisions
from topology.errors import ClusterError, TopologyError
from topology.history import Kind
from topology.model import Change, ShardState, Topology
from topology.ports import Cluster, ProcessReport
from topology.progress import (
    Doing,
    Outcome,
    Progress,
    Tally,
    holds_up,
    progress_of,
)
from topology.transitions import Stage, stage_of


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look again while there is something to wait for, in seconds."""

    first_s: float = 0.02
    longest_s: float = 0.5
    factor: float = 1.5
    #: At most this share of the time is spent on asking: 10,000 reports take their time.
    busy_share: float = 0.25


@dataclass(slots=True)
class _Memory:
    """What has been done for one epoch."""

    epoch: int
    installed: set[str] = field(default_factory=set)
    cleaned: bool = False
    copied: bool = False
    drained: bool = False
    since: float = 0.0


class Coordinator:
    """One change, driven by one process; ``without`` names processes that are not waited for."""

    def __init__(
        self,
        decisions: Decisions,
        cluster: Cluster,
        *,
        without: Collection[str] = (),
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.without = set(without)
        self._decisions = decisions
        self._cluster = cluster
        self._pace = pace or Pace()
        self._clock = clock
        self._memory = _Memory(0)
        self._tally = Tally()
        self._reports: Mapping[str, ProcessReport] = {}

    async def drive(self) -> AsyncIterator[Progress]:
        """Do what the change under way needs, until it has ended or is paused.

        Yields after each step, and at each look while it waits. The last one has an outcome.
        TopologyError only if the topology is gone or is none; stop iterating to stop driving.
        """
        change: Change | None = None
        pause_s = self._pace.first_s
        progress = Progress(0, Stage.IDLE, Doing.READING, None, 0, 0, self._tally)
        while progress.outcome is None:
            began = self._clock()
            try:
                topology = await self._decisions.read()
                if change is None or (topology.change and topology.change.id == change.id):
                    change = topology.change
                progress = await self._looked(topology, change)
            except ClusterError as error:
                if not progress.epoch and isinstance(error, TopologyError):
                    raise  # there is nothing to drive
                # Somebody was faster, or cannot be reached: look again.
                progress = replace(progress, trouble=str(error), holds=(), shards={})
            progress = replace(progress, waited_s=self._waited_s(progress))
            yield progress
            if progress.waits and progress.outcome is None:
                took_s = self._clock() - began
                await asyncio.sleep(max(pause_s, took_s / self._pace.busy_share - took_s))
                pause_s = min(pause_s * self._pace.factor, self._pace.longest_s)
            else:
                pause_s = self._pace.first_s

    # -- one look

    async def _looked(self, topology: Topology, change: Change | None) -> Progress:
        if self._memory.epoch != topology.epoch:
            self._memory = _Memory(topology.epoch)
        missing = await self._install(topology)
        now = topology.change
        if now is None or change is None or now.id != change.id:
            return self._ended(topology, change, missing)
        if missing:
            return replace(self._at(topology, Doing.INSTALLING), shards=missing)
        stage = stage_of(topology)
        if stage is Stage.BETWEEN:
            return await self._between(topology, now)
        if stage is Stage.PREPARED:
            return await self._prepared(topology, now)
        return await self._committed(topology, now)

    async def _install(self, topology: Topology) -> Mapping[str, str]:
        """Bring the topology to all shards that are not down; shard -> why it was not reached.

        To the old homes first: a writer that does not know yet is refused there, and learns it.
        """
        done = self._memory.installed
        up = [shard.id for shard in topology.shards if shard.state is not ShardState.DOWN]
        old = {home.id for slot in topology.moving if (home := topology.other_home(slot))}
        missing: dict[str, str] = {}
        for shards in ([s for s in up if s in old], [s for s in up if s not in old]):
            wanted = [shard for shard in shards if shard not in done]
            if wanted:
                failed = await self._cluster.install(topology, wanted)
                done.update(shard for shard in wanted if shard not in failed)
                missing |= failed
        return missing

    async def _between(self, topology: Topology, change: Change) -> Progress:
        if topology.table == change.table:
            return await self._finished(topology, change)
        if change.paused is not None:
            return replace(self._at(topology, Doing.ENDED), outcome=Outcome.PAUSED)
        prepared = transitions.prepare(topology)
        if not self._memory.cleaned:
            for shard, slots in _slots_by_other_home(prepared).items():
                cleaned = await self._cluster.clean_members(topology, shard, slots)
                self._count(members_cleaned=cleaned)
            self._memory.cleaned = True
            return self._at(topology, Doing.CLEANING)
        after = await self._decisions.transit(topology, transitions.prepare)
        return self._at(after, Doing.DECIDING)

    async def _prepared(self, topology: Topology, change: Change) -> Progress:
        if not self._memory.copied:
            self._count(members_copied=await self._cluster.copy_members(topology))
            self._memory.copied = True
            return self._at(topology, Doing.COPYING)
        if change.paused is not None:
            return replace(self._at(topology, Doing.ENDED), outcome=Outcome.PAUSED)
        self._reports = await self._cluster.processes(complete=True)
        holds = holds_up(topology, self._reports.values(), self.without)
        if holds:
            return replace(self._at(topology, Doing.SETTLING), holds=holds)
        after = await self._decisions.transit(topology, transitions.commit)
        await self._tell_without(topology, change)
        return self._at(after, Doing.DECIDING)

    async def _committed(self, topology: Topology, change: Change) -> Progress:
        # The old homes are fenced: once nothing is left there, nothing will be.
        left = {} if self._memory.drained else await self._moved(topology)
        self._memory.drained = not left
        self._reports = await self._cluster.processes(complete=True)
        holds = holds_up(topology, self._reports.values(), self.without)
        if holds or left:
            doing = Doing.DRAINING if holds else Doing.MOVING
            return replace(self._at(topology, doing), holds=holds, shards=left)
        return await self._finished(topology, change)

    async def _moved(self, topology: Topology) -> dict[str, str]:
        """Move what is left in queues; shard -> what is left all the same."""
        moved = await self._cluster.move_queues(topology)
        self._count(messages_moved=moved.moved, messages_dropped=moved.dropped)
        left = {}
        for shard, slots in _slots_by_other_home(topology).items():
            leftovers = await self._cluster.leftovers(shard, slots)
            if leftovers.queues:
                left[shard] = f"{leftovers.messages} messages in {leftovers.queues} queues"
        return left

    async def _finished(self, topology: Topology, change: Change) -> Progress:
        after = await self._decisions.transit(topology, transitions.finish)
        self._count(rounds=int(stage_of(topology) is not Stage.BETWEEN))
        await self._tell_without(topology, change)
        if after.change is None:
            kind = Kind.ABORTED if change.aborting else Kind.FINISHED
            await self._decisions.record(kind, after, change.summary, change.id)
        return self._at(after, Doing.DECIDING)

    def _ended(
        self, topology: Topology, change: Change | None, missing: Mapping[str, str]
    ) -> Progress:
        """The change is over, whoever has ended it."""
        done = change is None or topology.table == change.table
        outcome = Outcome.FINISHED if done else Outcome.ABORTED
        return replace(self._at(topology, Doing.ENDED), shards=missing, outcome=outcome)

    # -- what is told

    async def _tell_without(self, topology: Topology, change: Change) -> None:
        """The history names the processes that a step was taken without."""
        holds = holds_up(topology, self._reports.values(), ())
        if holds and stage_of(topology) is not Stage.BETWEEN:
            await self._decisions.record(
                Kind.WENT_ON_WITHOUT,
                topology,
                ", ".join(map(str, holds)),
                change.id,
                {"processes": [hold.process for hold in holds]},
            )

    def _at(self, topology: Topology, doing: Doing) -> Progress:
        return progress_of(topology, doing, self._tally)

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._tally, name) + count for name, count in more.items()}
        self._tally = replace(self._tally, **counts)

    def _waited_s(self, progress: Progress) -> float:
        if not progress.waits:
            self._memory.since = 0.0
            return 0.0
        now = self._clock()
        self._memory.since = self._memory.since or now
        return now - self._memory.since


def _slots_by_other_home(topology: Topology) -> dict[str, list[int]]:
    """Shard -> the moving slots whose other home it is."""
    found: dict[str, list[int]] = {}
    for slot in topology.moving:
        home = topology.other_home(slot)
        if home is not None:
            found.setdefault(home.id, []).append(slot)
    return found
