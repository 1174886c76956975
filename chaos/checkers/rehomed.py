"""P6, when a shard does not come back: its names are served by the others within a bound.

The names are those that were written to by way of it before. Each by itself: it is served again
when a write that was begun after the loss, and went by way of another shard, has been delivered:
a server may take a moment to die, and what it still did proves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.checkers.base import ended_early, first_arrivals_s, messages
from chaos.history import History, Operation, Outcome, Window


@dataclass(frozen=True, slots=True)
class Rehomed:
    """The names that were looked at, those that were served too late, and the longest time."""

    examined: int
    violations: tuple[str, ...]
    longest_s: float


def rehomed(history: History, window: Window) -> Rehomed:
    """How long the names of the window's shards were served by nobody.

    Names that nobody wrote to both soon after the loss and about when the time was over tell
    nothing.
    """
    until_s = window.began_s + window.rehomed_within_s
    arrived_s = first_arrivals_s(history)
    violations = []
    times_s = []
    for name, attempts in _attempts(history, window).items():
        served_s = [
            arrived_s[message]
            for message, write in attempts
            if write.outcome is Outcome.OK
            and write.shard not in window.shards
            and message in arrived_s
        ]
        took_s = min(served_s, default=float("inf")) - window.began_s
        if took_s <= window.rehomed_within_s:
            times_s.append(took_s)
        elif attempts[-1][1].invoked_s >= until_s or served_s:
            violations.append(_told(window, name, attempts, took_s))
    examined = len(times_s) + len(violations)
    return Rehomed(examined, tuple(violations), max(times_s, default=0.0))


def _attempts(history: History, window: Window) -> Mapping[str, Sequence[tuple[str, Operation]]]:
    """Name -> what was written to it while its shard was lost, in order of time."""
    early = ended_early(history)
    gone = {one.channel for one in history.opened if one.process in early}
    homes: dict[str, str] = {}
    found: dict[str, list[tuple[str, Operation]]] = defaultdict(list)
    for message, write in messages(history).items():
        if write.invoked_s < window.began_s:
            homes[write.name] = write.shard
        elif write.invoked_s <= window.ended_s and homes.get(write.name) in window.shards:
            found[write.name].append((message, write))
    return {name: attempts for name, attempts in found.items() if name not in gone}


def _told(
    window: Window, name: str, attempts: Sequence[tuple[str, Operation]], took_s: float
) -> str:
    when = "never" if took_s == float("inf") else f"{took_s:.3f} s later"
    return (
        f"{window.fault} at {window.began_s:.3f}: {name}, which had been on "
        f"{' '.join(window.shards)}, was served again {when}, with {len(attempts)} attempts; "
        f"{window.rehomed_within_s:g} s are allowed"
    )
