"""P9: every error says whether the operation may have happened, and nothing else is raised."""

from __future__ import annotations

from collections import Counter

from chaos.checkers.base import Finding, finding
from chaos.history import History


def check(history: History) -> Finding:
    """`figures`: outcomes, and errors by their kind.

    That what failed definitely is never delivered is checked as P2, that nothing is sent again as
    P1.
    """
    violations = [
        f"{failure.where} of {failure.process} raised {failure.error} at {failure.at_s:.3f}"
        for failure in history.failures
    ]
    figures: Counter[str] = Counter()
    for one in history.operations.values():
        if one.completed_s is not None:
            figures[f"{one.outcome}: {one.error}" if one.error else str(one.outcome)] += 1
    return finding("P9", sum(figures.values()), violations, dict(sorted(figures.items())))
