"""P5, P7, P10: planned changes, ZooKeeper and wrong clocks change nothing.

Their windows explain no loss (P4 sees to that) and no error either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chaos.checkers.base import (
    ANYWHERE,
    HEAL_S,
    PLANNED,
    Finding,
    finding,
    host_of,
    operations_in_time,
    touching,
)
from chaos.checkers.loss import losses
from chaos.history import CANCELLED, History, Operation, Outcome, Window

#: Errors that have nothing to do with what is wrong: the channel was full.
ORDINARY = ("ChannelFull", CANCELLED)


def check(invariant: str, history: History) -> Finding:
    """`figures`: operations while it lasted, and processes that started meanwhile.

    Invalid: an operation failed, or what was acknowledged meanwhile was lost, with no other fault
    near; a process that was started meanwhile did not come up.
    """
    windows = [window for window in history.windows if window.invariant == invariant]
    during = _during(history, windows)
    violations = [
        _told(one, during_s)
        for one, during_s in during
        if one.outcome is not Outcome.OK
        and one.completed_s is not None
        and one.error not in ORDINARY
        and not _struck(history, one, invariant)
    ]
    violations += [
        f"while it lasted: {text}"
        for write, text in losses(history).unexplained
        if any(_overlap(window, write) for window in windows)
    ]
    started = _started(history, windows)
    active = {one.process for one in history.operations.values()}
    violations += [
        f"process {process} was started at {at_s:.3f} and did nothing"
        for process, at_s in started
        if process not in active
    ]
    figures = {"operations meanwhile": len(during), "processes started": len(started)}
    return finding(invariant, len(during), violations, figures)


P5, P7, P10 = (partial(check, invariant) for invariant in ("P5", "P7", "P10"))


def _during(history: History, windows: Sequence[Window]) -> list[tuple[Operation, Window]]:
    """Operations that such a window can have touched, with the first that can."""
    operations = operations_in_time(history)
    found: dict[str, tuple[Operation, Window]] = {}
    for window in windows:
        for one in operations.overlapping(window.began_s, window.ended_s):
            if not window.processes or host_of(one.process) in window.processes:
                found.setdefault(one.id, (one, window))
    return list(found.values())


def _overlap(window: Window, one: Operation) -> bool:
    return one.invoked_s <= window.ended_s and one.settled_s >= window.began_s


def _struck(history: History, one: Operation, invariant: str) -> bool:
    """Whether a fault that may cause errors was near."""
    shards = {one.shard, ANYWHERE} if invariant == PLANNED else {one.shard}
    processes = {host_of(one.process)}
    return touching(history.faults, shards, processes, one.invoked_s, one.settled_s) is not None


def _started(history: History, windows: Sequence[Window]) -> list[tuple[str, float]]:
    """Lives that began meanwhile and had time to do something."""
    until_s = history.header.quiet_s - HEAL_S
    return [
        (life.process, life.began_s)
        for life in history.lives
        if not life.killed
        and (life.ready_s or life.began_s) < until_s
        and any(window.began_s <= life.began_s <= window.ended_s for window in windows)
    ]


def _told(one: Operation, window: Window) -> str:
    return (
        f"{one.verb} {one.id} by way of {one.shard} at {one.invoked_s:.3f}, during "
        f"{window.fault}, ended with {one.error or one.outcome}, and nothing else was wrong"
    )
