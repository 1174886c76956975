"""Rates and latencies of a run, second by second; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.checkers.base import messages
from chaos.history import History, Outcome, Window

STEP_S: Final = 1.0
QUANTILES: Final[Mapping[str, float]] = {"half": 0.5, "99 %": 0.99, "longest": 1.0}


@dataclass(frozen=True, slots=True)
class Timeline:
    """One value per second of the run.

    `rates` are events per second, by what they are; `calls_ms` and `transits_ms` are quantiles of
    how long writes took to return and messages to arrive, None where there was none.
    """

    seconds: float
    rates: Mapping[str, Sequence[float]]
    calls_ms: Mapping[str, Sequence[float | None]]
    transits_ms: Mapping[str, Sequence[float | None]]
    windows: tuple[Window, ...]  # times since the begin


NOTHING: Final = Timeline(0.0, {}, {}, {}, ())


def timeline_of(history: History) -> Timeline:
    began_s = history.header.began_s
    seconds = max(history.header.ended_s - began_s, STEP_S)
    steps = int(seconds / STEP_S) + 1
    counts = {name: [0.0] * steps for name in ("written", "delivered", "failed or unknown")}
    calls: list[list[float]] = [[] for _ in range(steps)]
    transits: list[list[float]] = [[] for _ in range(steps)]

    def step_of(at_s: float) -> int:
        return min(steps - 1, max(0, int((at_s - began_s) / STEP_S)))

    writes = messages(history)
    for write in writes.values():
        step = step_of(write.invoked_s)
        counts["written"][step] += 1 / STEP_S
        if write.completed_s is not None:
            calls[step].append((write.completed_s - write.invoked_s) * 1000)
            if write.outcome is not Outcome.OK:
                counts["failed or unknown"][step] += 1 / STEP_S
    for delivery in history.deliveries:
        counts["delivered"][step_of(delivery.at_s)] += 1 / STEP_S
        sent = writes.get(delivery.message)
        if sent is not None:
            transits[step_of(sent.invoked_s)].append((delivery.at_s - sent.invoked_s) * 1000)
    return Timeline(
        seconds, counts, _quantiles(calls), _quantiles(transits), _since(history, began_s)
    )


def _quantiles(values: Sequence[list[float]]) -> dict[str, list[float | None]]:
    ordered = [sorted(step) for step in values]
    return {
        name: [_quantile(step, share) if step else None for step in ordered]
        for name, share in QUANTILES.items()
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of all (nearest rank)."""
    rank = -int(-share * len(ordered) // 1)
    return round(ordered[max(0, min(len(ordered), rank) - 1)], 3)


def _since(history: History, began_s: float) -> tuple[Window, ...]:
    return tuple(
        Window(
            window.fault,
            window.began_s - began_s,
            window.ended_s - began_s,
            window.shards,
            window.processes,
            window.effect,
            window.invariant,
        )
        for window in history.windows
    )
