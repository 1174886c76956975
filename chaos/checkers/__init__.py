"""What a history says about the promises; pure functions, one module per promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from chaos.checkers import addressed, bounded, heal, honest, loss, once, order, substance
from chaos.checkers.base import Finding, Verdict
from chaos.history import History

CHECKERS: Final[Mapping[str, Callable[[History], Finding]]] = {
    "P1": once.check,
    "P2": addressed.check,
    "P3": order.check,
    "P4": loss.check,
    "P6": heal.check,
    "P8": bounded.check,
    "P9": honest.check,
}


def check(history: History) -> tuple[Finding, ...]:
    """A finding for each invariant that the scenario puts to the test, and one on its substance."""
    wanted = [CHECKERS[name] for name in CHECKERS if name in history.header.invariants]
    return (*(checker(history) for checker in wanted), substance.check(history))


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Invalid if any is, else unknown if any is, else valid."""
    verdicts = {one.verdict for one in findings}
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        if verdict in verdicts:
            return verdict
    return Verdict.VALID
