"""Driving a change to its end, with somebody who watches and may decide on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum
from typing import Protocol

from cluster_layer.cli.exits import Unfinished
from cluster_layer.cli.how import How
from cluster_layer.cli.session import Session
from cluster_layer.program import command
from topology.coordinator import Coordinator
from topology.decisions import OPERATOR_LOCK
from topology.errors import ClusterError, LockHeld, StoreUnavailable
from topology.model import Topology
from topology.ports import Lock
from topology.progress import Doing, Outcome, Progress, Tally, holds_up, progress_of
from topology.transitions import Stage

LOOK_EVERY_S = 0.5


class Choice(Enum):
    """What an operator may decide while a change is being driven."""

    WITHOUT = "go on without the processes that hold it up"
    PAUSE = "pause it"
    ABORT = "abort it"
    LEAVE = "stop driving it"


class Watcher(Protocol):
    """Who is told of a change."""

    def show(self, progress: Progress) -> None:
        """One step, or one look."""

    def choice(self) -> Choice | None:
        """What was decided since the last look. Never waits."""


@asynccontextmanager
async def resumable(session: Session) -> AsyncIterator[None]:
    """Unfinished, with what is there now, if what is done here is interrupted."""
    try:
        yield
    except asyncio.CancelledError:
        raise Unfinished(await _left(session, "interrupted")) from None


async def look(session: Session) -> Progress:
    """How far the change under way is, for whoever does not drive it."""
    topology = await session.decisions.read()
    progress = progress_of(topology, _doing(topology), Tally())
    if progress.stage in (Stage.IDLE, Stage.BETWEEN):
        return progress
    statuses = await session.lookout.statuses(topology)
    reports = await session.lookout.processes(topology, statuses)
    holds = holds_up(topology, reports.values(), ())
    return replace(progress, holds=holds)


class _Seat:
    """The operators' lock, for as long as nobody else wants it."""

    def __init__(self, session: Session, lock: Lock) -> None:
        self._session = session
        self._lock = lock

    async def keep(self) -> None:
        """Unfinished if somebody else has it now, and so drives the change."""
        try:
            if not await asyncio.to_thread(self._lock.held):
                # It ended with our session at the store; it is given back when that is closed.
                self._lock = await self._session.decisions.take(OPERATOR_LOCK)
        except StoreUnavailable:  # nobody can tell
            return
        except LockHeld as error:
            who = error.holder or "another operator"
            raise Unfinished(f"{who} has taken the lock, and drives the change now") from error


async def drive(session: Session, watcher: Watcher, lock: Lock, how: How) -> Outcome:
    """To the end of the change under way. Unfinished if it is paused, left, or somebody else's."""
    seat = _Seat(session, lock)
    coordinator = Coordinator(session.decisions, session.cluster, without=how.without)
    outcome: Outcome | None = None
    async for progress in coordinator.drive():
        watcher.show(progress)
        outcome = progress.outcome
        if outcome is not None:
            break
        await seat.keep()
        choice = watcher.choice()
        if how.patience_s is not None and progress.waited_s > how.patience_s:
            # Nobody is there to decide: what is paused does no harm and can go on at any time.
            with suppress(ClusterError):
                await session.decisions.pause(_why(progress)[:500])
            raise Unfinished(await _left(session, f"waited {how.patience_s:g} s: {_why(progress)}"))
        if choice is Choice.WITHOUT:
            coordinator.without |= {hold.process for hold in progress.holds}
        elif choice is Choice.PAUSE:
            await session.decisions.pause("by its operator")
        elif choice is Choice.ABORT:
            await session.decisions.abort()
        elif choice is Choice.LEAVE:
            raise Unfinished(await _left(session, "left"))
    assert outcome is not None  # noqa: S101 - a coordinator ends with one
    if outcome is Outcome.PAUSED:
        raise Unfinished(await _left(session, "paused"))
    return outcome


async def _left(session: Session, why: str) -> str:
    """What is there now, for whoever comes next."""
    try:
        topology = await session.decisions.read()
    except ClusterError as error:
        return f"{why}; what became of the change is unknown ({error})"
    if topology.change is None:
        return f"{why}; no change is under way, at epoch {topology.epoch}"
    return (
        f"{why}: the change {topology.change.summary!r} is at epoch {topology.epoch}; "
        f"`{command('resume')}` goes on with it from any machine, `{command('abort')}` ends it"
    )


def _why(progress: Progress) -> str:
    holds = [f"process {hold}" for hold in progress.holds]
    shards = [f"shard {shard}: {reason}" for shard, reason in progress.shards.items()]
    return "; ".join([*holds, *shards, *filter(None, [progress.trouble])])


def _doing(topology: Topology) -> Doing:
    """What a coordinator does at this stage, as far as the topology tells."""
    stage = progress_of(topology, Doing.READING, Tally()).stage
    return {
        Stage.IDLE: Doing.ENDED,
        Stage.BETWEEN: Doing.DECIDING,
        Stage.PREPARED: Doing.SETTLING,
        Stage.COMMITTED: Doing.DRAINING,
        Stage.UNDOING: Doing.DRAINING,
    }[stage]
