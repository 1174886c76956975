"""What operators and monitors decide: read, a transition, compare-and-set, and a line of history.

Stores block, so each call runs in a thread. Times in the history are by the decider's clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from topology import transitions
from topology.errors import (
    ClusterError,
    StaleEpoch,
    StoreUnavailable,
    TopologyInvalid,
    TopologyUnavailable,
)
from topology.history import Entry, Holder, Kind
from topology.ids import new_change_id
from topology.model import Change, Operator, Topology
from topology.planning import plan_back
from topology.plans import Plan
from topology.ports import Cluster, Lock, OperatorStore
from topology.rehoming import clean_for_rehoming

_log = logging.getLogger(__name__)

#: How often a decision that does not depend on the epoch is made anew when somebody was faster.
_ATTEMPTS: Final = 20
OPERATOR_LOCK: Final = "operator"
HISTORY_LIMIT: Final = 500

Transition = Callable[[Topology], Topology]


class Decisions:
    """The decisions of one operator; every error says whether the topology was changed.

    StoreUnavailable with ``definite`` false: it may have been.
    """

    def __init__(
        self,
        store: OperatorStore,
        operator: Operator,
        *,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_change_id,
    ) -> None:
        self.operator = operator
        self._store = store
        self._wall_clock = wall_clock
        self._new_id = new_id

    async def read(self) -> Topology:
        """The newest topology; TopologyUnavailable if there is none."""
        found = await asyncio.to_thread(self._store.read)
        if found is None:
            raise TopologyUnavailable(f"{self._store!r} has no topology: create one with `init`")
        return found

    async def history(self, limit: int = HISTORY_LIMIT) -> Sequence[Entry]:
        """The newest entries, oldest first."""
        return await asyncio.to_thread(self._store.history, limit)

    # -- what operators decide

    async def create(self, topology: Topology) -> None:
        """The first topology of a store; StaleEpoch if it has one."""
        await self._swap(None, topology)
        await self.record(Kind.CREATED, topology, f"{len(topology.shards)} shards")

    async def begin(self, plan: Plan, *, step: int) -> Topology:
        """Begin to execute a plan: exactly this one, or not at all."""
        before = await self.read()
        change_id = self._new_id()
        begun = transitions.begin(
            before,
            plan,
            change_id=change_id,
            operator=self.operator,
            started_at=int(self._wall_clock()),
            step=step,
        )
        # Written ahead: a rollback needs what was before, whatever becomes of us.
        await self._append(Kind.BEGUN, begun.epoch, plan.summary, change_id, before=before)
        try:
            await self._swap(before, begun)
        except StaleEpoch as error:
            await self.record(Kind.REFUSED, before, str(error), change_id)
            raise
        if begun.change is None:
            await self.record(Kind.FINISHED, begun, plan.summary, change_id)
        return begun

    async def pause(self, reason: str) -> Topology:
        return await self._decide(
            lambda topology: transitions.pause(topology, reason), lambda _: Kind.PAUSED, reason
        )

    async def resume(self) -> Topology:
        return await self._decide(transitions.resume, lambda _: Kind.RESUMED, "")

    async def throttle(self, step: int) -> Topology:
        return await self._decide(
            lambda topology: transitions.throttle(topology, step),
            lambda _: Kind.THROTTLED,
            f"{step} slots per round",
        )

    async def abort(self) -> Topology:
        """End the change; if a round has to be undone, driving it to its end does that."""
        return await self._decide(
            transitions.abort, lambda after: Kind.ABORTED if after.change is None else None, ""
        )

    async def mark_down(
        self,
        cluster: Cluster,
        shards: Collection[str],
        reason: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> Topology:
        """Give the slots of lost shards to the others, which must have nothing of them."""

        async def clean(topology: Topology) -> None:
            _tell_uncleaned(await clean_for_rehoming(cluster, topology, shards))

        return await self._decide(
            lambda topology: transitions.rehome(topology, shards, reason),
            lambda _: Kind.MARKED_DOWN,
            reason,
            {"shards": sorted(shards), **(evidence or {})},
            first=clean,
        )

    async def rollback_plan(self) -> Plan:
        """The way back to the table before the last change that had an effect."""
        topology = await self.read()
        for entry in reversed(await self.history()):
            former = entry.before
            if entry.kind is not Kind.BEGUN or former is None:
                continue
            if former.cluster == topology.cluster and not _same(former, topology):
                return plan_back(topology, former, f"roll back {entry.summary!r}")
        raise TopologyInvalid("there is nothing to go back to: the history knows no former table")

    @asynccontextmanager
    async def at_work(
        self, name: str = OPERATOR_LOCK, *, steal: bool = False
    ) -> AsyncIterator[Lock]:
        """Hold a lock; LockHeld says who has it."""
        lock = await self.take(name, steal=steal)
        try:
            yield lock
        finally:
            await asyncio.to_thread(lock.release)

    async def take(self, name: str, *, steal: bool = False) -> Lock:
        """Take a lock, to be released by the caller; LockHeld says who has it."""
        holder = Holder(self.operator, self._wall_clock())
        return await asyncio.to_thread(self._store.lock, name, holder, steal=steal)

    # -- what a coordinator decides

    async def rehome(
        self, cluster: Cluster, topology: Topology, shards: Collection[str], reason: str
    ) -> Topology:
        """`mark_down` for exactly this topology, and no history; StaleEpoch if there is a newer."""
        _tell_uncleaned(await clean_for_rehoming(cluster, topology, shards))
        return await self.transit(topology, lambda now: transitions.rehome(now, shards, reason))

    async def transit(self, topology: Topology, transition: Transition) -> Topology:
        """The transition of exactly this topology; StaleEpoch if there is a newer one."""
        after = transition(topology)
        await self._swap(topology, after)
        return after

    async def record(
        self,
        kind: Kind,
        topology: Topology,
        summary: str,
        change: str | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell what has happened; a history that cannot be written stops nobody."""
        try:
            await self._append(kind, topology.epoch, summary, change, evidence)
        except ClusterError as error:
            _log.warning("the history lacks %s (%s): %s", kind.value, summary, error)

    # -- internals

    async def _decide(
        self,
        transition: Transition,
        kind_of: Callable[[Topology], Kind | None],
        summary: str,
        evidence: Mapping[str, Any] | None = None,
        first: Callable[[Topology], Awaitable[None]] | None = None,
    ) -> Topology:
        """A transition that is right whatever else has just happened.

        `first` is done for each topology that it is tried with.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            before = await self.read()
            if first is not None:
                await first(before)
            try:
                after = await self.transit(before, transition)
            except StaleEpoch:
                if attempt == _ATTEMPTS:
                    raise
                continue
            if (kind := kind_of(after)) is not None:
                await self.record(kind, after, summary, _id(before.change), evidence)
            return after
        raise AssertionError("unreachable")

    async def _swap(self, before: Topology | None, after: Topology) -> None:
        expected = None if before is None else before.epoch
        try:
            await self._write(after, expected)
        except StoreUnavailable as error:
            if error.definite:
                raise
            # It may have been executed. Written once more, it is, or was, or somebody was faster.
            await self._swap_again(after, expected)

    async def _swap_again(self, after: Topology, expected: int | None) -> None:
        try:
            await self._write(after, expected)
        except StaleEpoch:
            if await asyncio.to_thread(self._store.read) != after:
                raise
        except StoreUnavailable as error:
            # The first attempt is as open as before.
            raise StoreUnavailable(str(error), definite=False) from error

    async def _write(self, topology: Topology, expected: int | None) -> None:
        await asyncio.to_thread(self._store.write, topology, expected_epoch=expected)

    async def _append(
        self,
        kind: Kind,
        epoch: int,
        summary: str,
        change: str | None = None,
        evidence: Mapping[str, Any] | None = None,
        before: Topology | None = None,
    ) -> None:
        entry = Entry(
            at=self._wall_clock(),
            kind=kind,
            operator=self.operator,
            epoch=epoch,
            summary=summary,
            change=change,
            evidence=evidence or {},
            before=before,
        )
        await asyncio.to_thread(self._store.append_history, entry)


def _tell_uncleaned(missing: Mapping[str, str]) -> None:
    for shard, why in missing.items():
        _log.warning("shard %s may bring members back that have left: %s", shard, why)


def _id(change: Change | None) -> str | None:
    return None if change is None else change.id


def _same(one: Topology, other: Topology) -> bool:
    return one.table == other.table and set(one.final_shards()) == set(other.final_shards())
