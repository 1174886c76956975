"""What a history says about the promises; pure functions, one module per promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from chaos.checkers import (
    addressed,
    bounded,
    heal,
    honest,
    loss,
    once,
    order,
    substance,
    unchanged,
)
from chaos.checkers.base import Finding, Verdict
from chaos.history import History

CHECKERS: Final[Mapping[str, Callable[[History], Finding]]] = {
    "P1": once.check,
    "P2": addressed.check,
    "P3": order.check,
    "P4": loss.check,
    "P5": unchanged.P5,
    "P6": heal.check,
    "P7": unchanged.P7,
    "P8": bounded.check,
    "P9": honest.check,
    "P10": unchanged.P10,
}


def check(history: History) -> tuple[Finding, ...]:
    """A finding for each invariant that the scenario puts to the test, and one on its substance."""
    wanted = [CHECKERS[name] for name in CHECKERS if name in history.header.invariants]
    found = [checker(history) for checker in wanted]
    if len({window.fault for window in history.windows}) > 1:
        # In a mixture another fault may have left nobody to whom this could have happened.
        found = [one for one in found if not _is_idle(one)]
    return (*found, substance.check(history))


def _is_idle(finding: Finding) -> bool:
    return finding.invariant in ("P5", "P6", "P7", "P10") and finding.verdict is Verdict.UNKNOWN


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Invalid if any is, else unknown if any is, else valid."""
    verdicts = {one.verdict for one in findings}
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        if verdict in verdicts:
            return verdict
    return Verdict.VALID
