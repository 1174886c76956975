"""P6: what a fault broke works again soon after its end, and receive() outlives every outage.

The names of a shard that is lost are served by others before that: see `rehomed`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from chaos.checkers.base import HEAL_S, Finding, finding, host_of, messages
from chaos.checkers.loss import UPGRADE
from chaos.checkers.rehomed import rehomed
from chaos.history import WRITES, History, Operation, Outcome, Verb, Window


def check(history: History) -> Finding:
    """`figures`: the longest healing time per fault, in seconds.

    Each fault, each shard it struck and each verb by itself: healed is when a write that was begun
    after the fault's end has been delivered.
    """
    times = _HealingTimes(history)
    figures: dict[str, float] = {}
    violations = [
        f"{failure.where} of {failure.process} raised {failure.error} at {failure.at_s:.3f}"
        for failure in history.failures
        if "receive" in failure.where or "read" in failure.where
    ]
    examined = 0
    for window in history.faults:
        for (shard, verb), (healed_s, attempts) in times.of(window).items():
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
    times = _HealingTimes(history)
    found = []
    for window in history.faults:
        healed = [healed_s for healed_s, _ in times.of(window).values() if healed_s is not None]
        found.append((window, max(healed, default=None)))
    return found


class _HealingTimes:
    def __init__(self, history: History) -> None:
        self._history = history
        self._first_arrival: dict[str, float] = {}
        for delivery in history.deliveries:
            self._first_arrival.setdefault(delivery.message, delivery.at_s)
        writes = sorted(messages(history).items(), key=lambda item: item[1].invoked_s)
        self._writes = writes
        self._invoked_s = [write.invoked_s for _, write in writes]

    def of(self, window: Window) -> dict[tuple[str, Verb], tuple[float | None, int]]:
        """(shard, verb) -> seconds until it worked again, and how many writes tell.

        Of those who were struck, while nothing else struck them; shards with too few attempts to
        tell are left out.
        """
        attempts: dict[tuple[str, Verb], list[tuple[str, Operation]]] = {}
        first = bisect_left(self._invoked_s, window.ended_s)
        last = bisect_right(self._invoked_s, window.ended_s + HEAL_S)
        for message, write in self._writes[first:last]:
            struck = not window.shards or write.shard in window.shards
            ours = not window.processes or host_of(write.process) in window.processes
            if write.verb in WRITES and struck and ours:
                attempts.setdefault((write.shard, write.verb), []).append((message, write))
        return {
            (shard, verb): (self._healed_s(found, window), len(found))
            for (shard, verb), found in attempts.items()
            if found[-1][1].invoked_s - found[0][1].invoked_s > HEAL_S / 2
            and not self._struck_again(window, shard)
        }

    def _healed_s(self, attempts: Sequence[tuple[str, Operation]], window: Window) -> float | None:
        healed = [
            self._first_arrival[message]
            for message, write in attempts
            if write.outcome is Outcome.OK and message in self._first_arrival
        ]
        return min(healed) - window.ended_s if healed else None

    def _struck_again(self, window: Window, shard: str) -> bool:
        return any(
            other is not window
            and (not other.shards or shard in other.shards)
            and other.began_s < window.ended_s + HEAL_S
            and other.ended_s > window.ended_s
            for other in self._history.windows
            if not other.invariant or other.fault == UPGRADE  # who was to read may have gone
        )


def _told(window: Window, shard: str, verb: Verb, healed_s: float | None, attempts: int) -> str:
    found = "nothing arrived" if healed_s is None else f"the first arrived {healed_s:.3f} s later"
    return (
        f"{window.fault} ended at {window.ended_s:.3f}: of {attempts} {verb} by way of {shard} in "
        f"the {HEAL_S:g} s after it {found}"
    )
