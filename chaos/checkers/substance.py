"""Not vacuous: every kind of fault struck something on its way, and doubts really arose."""

from __future__ import annotations

from chaos.checkers.base import Finding, Verdict, host_of, touching
from chaos.history import History, Outcome, Window


def check(history: History) -> Finding:
    """Unknown, never invalid: a run without substance proves nothing either way."""
    struck = {window.fault for window in history.windows if _struck(history, window)}
    doubts = [
        f"{fault} never struck anything that was on its way"
        for fault in sorted({window.fault for window in history.windows} - struck)
    ]
    outcomes = {one.outcome for one in history.writes() if one.completed_s is not None}
    if history.header.expects_unknown and Outcome.UNKNOWN not in outcomes:
        doubts.append("no outcome was unknown")
    if not history.deliveries:
        doubts.append("nothing was delivered")
    verdict = Verdict.UNKNOWN if doubts else Verdict.VALID
    return Finding("substance", verdict, len(history.windows), tuple(doubts))


def _struck(history: History, window: Window) -> bool:
    return window.effect > 0 and any(
        touching([window], {one.shard}, {host_of(one.process)}, one.invoked_s, one.settled_s)
        for one in history.writes()
    )
