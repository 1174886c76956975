"""P6: what a fault broke works again soon after its end, and receive() outlives every outage.

The names of a shard that is lost are served by others before that: see `rehomed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.checkers.base import (
    HEAL_S,
    Finding,
    finding,
    first_arrivals_s,
    host_of,
    writes_in_time,
)
from chaos.checkers.loss import UPGRADE
from chaos.checkers.rehomed import rehomed
from chaos.history import History, Operation, Outcome, Verb, Window, asked_once

#: (shard, verb) -> seconds until it worked again, None if it never did; how many writes tell.
Times = Mapping[tuple[str, Verb], tuple[float | None, int]]


def check(history: History) -> Finding:
    """`figures`: the longest healing time per fault, in seconds.

    Each fault, each shard it struck and each verb by itself: healed is when a write that was begun
    after the fault's end has been delivered.
    """
    figures: dict[str, float] = {}
    violations = [
        f"{failure.where} of {failure.process} raised {failure.error} at {failure.at_s:.3f}"
        for failure in history.failures
        if "receive" in failure.where or "read" in failure.where
    ]
    examined = 0
    for window, times in _healing_times(history):
        for (shard, verb), (healed_s, attempts) in times.items():
            examined += 1
            if healed_s is None or healed_s > HEAL_S:
                violations.append(_told(window, shard, verb, healed_s, attempts))
            else:
                key = f"heal s: {window.fault}"
                figures[key] = max(figures.get(key, 0.0), round(healed_s, 3))
        if window.rehomed_within_s:
            found = rehomed(history, window)
            examined += found.examined
            violations += found.violations
            figures[f"new homes s: {window.fault}"] = round(found.longest_s, 3)
    return finding("P6", examined, violations, figures)


def healing_times_s(history: History) -> list[tuple[Window, float | None]]:
    """For each fault the longest time that any shard and verb took; None: it can't be told."""
    found = []
    for window, times in _healing_times(history):
        healed = [healed_s for healed_s, _ in times.values() if healed_s is not None]
        found.append((window, max(healed, default=None)))
    return found


@asked_once
def _healing_times(history: History) -> list[tuple[Window, Times]]:
    return [(window, _times(history, window)) for window in history.faults]


def _times(history: History, window: Window) -> Times:
    """Of those who were struck, while nothing else struck them.

    Shards with too few attempts to tell are left out.
    """
    attempts: dict[tuple[str, Verb], list[Operation]] = {}
    for write in writes_in_time(history).begun(window.ended_s, window.ended_s + HEAL_S):
        struck = not window.shards or write.shard in window.shards
        ours = not window.processes or host_of(write.process) in window.processes
        if struck and ours:
            attempts.setdefault((write.shard, write.verb), []).append(write)
    arrived_s = first_arrivals_s(history)
    return {
        (shard, verb): (_healed_s(found, arrived_s, window), len(found))
        for (shard, verb), found in attempts.items()
        if found[-1].invoked_s - found[0].invoked_s > HEAL_S / 2
        and not _struck_again(history, window, shard)
    }


def _healed_s(
    attempts: Sequence[Operation], arrived_s: Mapping[str, float], window: Window
) -> float | None:
    healed = [
        arrived_s[write.message]
        for write in attempts
        if write.outcome is Outcome.OK and write.message in arrived_s
    ]
    return min(healed) - window.ended_s if healed else None


def _struck_again(history: History, window: Window, shard: str) -> bool:
    return any(
        other is not window
        and (not other.shards or shard in other.shards)
        and other.began_s < window.ended_s + HEAL_S
        and other.ended_s > window.ended_s
        for other in history.windows
        if not other.invariant or other.fault == UPGRADE  # who was to read may have gone
    )


def _told(window: Window, shard: str, verb: Verb, healed_s: float | None, attempts: int) -> str:
    found = "nothing arrived" if healed_s is None else f"the first arrived {healed_s:.3f} s later"
    return (
        f"{window.fault} ended at {window.ended_s:.3f}: of {attempts} {verb} by way of {shard} in "
        f"the {HEAL_S:g} s after it {found}"
    )
