"""Not vacuous: faults struck what was on its way, and outcomes really were unknown."""

from __future__ import annotations

from chaos.checkers.base import (
    HEAL_S,
    Finding,
    Verdict,
    host_of,
    messages,
    touching,
    writes_in_time,
)
from chaos.history import History, Outcome, Window


def check(history: History) -> Finding:
    """Unknown, never invalid: a run without substance proves nothing either way."""
    kinds = {window.fault for window in history.windows}
    struck = {window.fault for window in history.windows if _struck(history, window)}
    missed = [
        f"{fault} never struck anything that was on its way" for fault in sorted(kinds - struck)
    ]
    # In a storm some strike where nothing is going on; most must not.
    doubts = missed if len(struck) * 2 < len(kinds) or len(kinds) == 1 else []
    writes = messages(history).values()
    outcomes = {one.outcome for one in writes if one.completed_s is not None}
    if history.header.expects_unknown and Outcome.UNKNOWN not in outcomes:
        doubts.append("no outcome was unknown")
    if not history.deliveries:
        doubts.append("nothing was delivered")
    verdict = Verdict.UNKNOWN if doubts else Verdict.VALID
    figures = {"kinds of faults": len(kinds), "that struck": len(struck)} if kinds else {}
    return Finding("substance", verdict, len(history.windows), tuple(doubts), len(doubts), figures)


def _struck(history: History, window: Window) -> bool:
    return window.effect > 0 and any(
        touching([window], {one.shard}, {host_of(one.process)}, one.invoked_s, one.settled_s)
        for one in writes_in_time(history).overlapping(
            window.began_s - HEAL_S, window.ended_s + HEAL_S
        )
    )
