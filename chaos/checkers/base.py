"""What a checker finds, and the questions that several of them ask of a history."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chaos.history import WRITES, History, Operation, Outcome, Verb, Window, asked_once

HEAL_S: Final = 5.0  # P6: what a fault broke works again so long after its end
PLANNED: Final = "P5"  # the promise about planned changes
ANYWHERE: Final = ""  # the shard of a message of which nobody can say where it went
MAX_SHOWN: Final = 20  # violations that are kept; more are only counted


class Verdict(StrEnum):
    """The answer to whether a promise was kept."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"  # nothing happened that could have broken it


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one invariant; `examined` says on how many cases, `figures` what was seen.

    `violations` are the first of them, `broken` says how many there were.
    """

    invariant: str
    verdict: Verdict
    examined: int
    violations: tuple[str, ...] = ()
    broken: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


def finding(
    invariant: str,
    examined: int,
    violations: list[str],
    figures: Mapping[str, float] | None = None,
) -> Finding:
    """Invalid with any violation, unknown when nothing was examined."""
    proved = Verdict.VALID if examined else Verdict.UNKNOWN
    shown = violations[:MAX_SHOWN]
    verdict = Verdict.INVALID if violations else proved
    return Finding(invariant, verdict, examined, tuple(shown), len(violations), figures or {})


@asked_once
def process_specific(history: History) -> set[str]:
    """The channels that one process alone reads."""
    return {one.channel for one in history.opened}


def host_of(process: str) -> str:
    """The name of a process without its life."""
    return process.partition(".")[0]


@asked_once
def messages(history: History) -> dict[str, Operation]:
    """Message -> the write that it comes from, in order of their beginning."""
    writes = [one for one in history.operations.values() if one.verb in WRITES]
    writes.sort(key=lambda one: one.invoked_s)
    return {one.message: one for one in writes}


@asked_once
def first_arrivals_s(history: History) -> dict[str, float]:
    """Message -> when it came to anybody first."""
    found: dict[str, float] = {}
    for delivery in history.deliveries:
        found.setdefault(delivery.message, delivery.at_s)
    return found


class InTime:
    """Operations by the time that they took."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = sorted(operations, key=lambda one: one.invoked_s)
        self._invoked_s = [one.invoked_s for one in self._operations]
        took_s = (one.settled_s - one.invoked_s for one in self._operations)
        self._longest_s = max(took_s, default=0.0)

    def begun(self, from_s: float, until_s: float) -> list[Operation]:
        """Those that began within a time, both ends included."""
        first = bisect_left(self._invoked_s, from_s)
        return self._operations[first : bisect_right(self._invoked_s, until_s)]

    def overlapping(self, from_s: float, until_s: float) -> Iterator[Operation]:
        """Those that were going on at some moment of a time, both ends included."""
        begun = self.begun(from_s - self._longest_s, until_s)
        return (one for one in begun if one.settled_s >= from_s)


@asked_once
def writes_in_time(history: History) -> InTime:
    """Sends and group sends."""
    return InTime(messages(history).values())


@asked_once
def operations_in_time(history: History) -> InTime:
    """Whatever was done."""
    return InTime(history.operations.values())


@dataclass(slots=True)
class Membership:
    """All that was done about one channel's membership in one group."""

    joins: list[Operation] = field(default_factory=list)
    leaves: list[Operation] = field(default_factory=list)

    def forbids(self, sent_s: float) -> bool:
        """Whether a message whose send was invoked at this time must not arrive.

        So it is if every join that may have worked was followed by a leave that was acknowledged
        before the send.
        """
        return not any(self._may_last(join, sent_s) for join in self.joins)

    def demands(self, write: Operation) -> Operation | None:
        """The latest join by which this acknowledged message must arrive, if there is one."""
        for join in reversed(self.joins):
            if join.outcome is not Outcome.OK or join.settled_s >= write.invoked_s:
                continue
            if all(_before(leave, join) or _after(leave, write) for leave in self.leaves):
                return join
        return None

    def _may_last(self, join: Operation, sent_s: float) -> bool:
        if join.outcome is Outcome.NO:
            return False
        # A join of unknown outcome may be executed until its settling; a leave that overlaps it
        # may have come first.
        return not any(
            leave.outcome is Outcome.OK
            and leave.invoked_s >= join.settled_s
            and join.completed_s is not None
            and leave.settled_s < sent_s
            for leave in self.leaves
        )


def _before(leave: Operation, join: Operation) -> bool:
    return leave.completed_s is not None and leave.completed_s < join.invoked_s


def _after(leave: Operation, write: Operation) -> bool:
    return leave.invoked_s > write.settled_s


@asked_once
def memberships(history: History) -> dict[str, dict[str, Membership]]:
    """Group -> channel -> what was done."""
    found: dict[str, dict[str, Membership]] = defaultdict(lambda: defaultdict(Membership))
    for one in history.operations.values():
        if one.verb is Verb.GROUP_ADD:
            found[one.name][one.member].joins.append(one)
        elif one.verb is Verb.GROUP_DISCARD:
            found[one.name][one.member].leaves.append(one)
    return found


def stood_still_s(history: History, process: str, began_s: float, ended_s: float) -> float:
    """How much of a time this life of a process stood still by a fault."""
    return sum(
        max(0.0, min(ended_s, stall.ended_s) - max(began_s, stall.began_s))
        for stall in history.stalls
        if stall.process in (process, host_of(process))
    )


@asked_once
def ended_early(history: History) -> dict[str, float]:
    """Lives that ended before the run did -> when: killed, or replaced."""
    return {
        life.process: life.ended_s
        for life in history.lives
        if life.killed or life.ended_s < history.header.quiet_s
    }


def moves(history: History) -> list[Window]:
    """What gave names other homes: what was written then went where nobody knows."""
    return [
        window
        for window in history.windows
        if window.invariant == PLANNED or window.rehomed_within_s
    ]


def touching(
    windows: Sequence[Window], shards: set[str], processes: set[str], began_s: float, ended_s: float
) -> Window | None:
    """The latest fault, with its time of healing, that overlaps a time and lies on the way."""
    for window in reversed(windows):
        if began_s > window.ended_s + HEAL_S or ended_s < window.began_s:
            continue
        on_shard = not window.shards or ANYWHERE in shards or shards & set(window.shards)
        on_process = not window.processes or processes & set(window.processes)
        if on_shard and on_process:
            return window
    return None
