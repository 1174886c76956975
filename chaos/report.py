"""Findings for people and for programs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chaos.checkers import verdict_of
from chaos.checkers.base import Finding, Verdict
from chaos.history import History

EXIT_CODES = {Verdict.VALID: 0, Verdict.INVALID: 1, Verdict.UNKNOWN: 2}


@dataclass(frozen=True, slots=True)
class Report:
    """One run, judged."""

    history: History
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def title(self) -> str:
        header = self.history.header
        return f"{header.scenario}, seed {header.seed}"


def summary(report: Report) -> str:
    """A few lines for a terminal."""
    history = report.history
    seconds = history.header.quiet_s - history.header.began_s
    lines = [
        f"{report.verdict.upper():8} {report.title}: {len(history.writes())} writes in "
        f"{seconds:.0f} s, {len(history.deliveries)} deliveries, {len(history.windows)} faults"
    ]
    for one in report.findings:
        figures = ", ".join(f"{name} {value:g}" for name, value in one.figures.items())
        lines.append(f"  {one.invariant:9} {one.verdict:8} {one.examined:8} examined  {figures}")
        lines += [f"      {violation}" for violation in one.violations]
    return "\n".join(lines)


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Everything but the histories."""
    return {
        "verdict": verdict_of([finding for one in reports for finding in one.findings]),
        "runs": [
            {
                "header": asdict(one.history.header),
                "verdict": one.verdict,
                "writes": len(one.history.writes()),
                "deliveries": len(one.history.deliveries),
                "windows": [asdict(window) for window in one.history.windows],
                "findings": [asdict(finding) for finding in one.findings],
            }
            for one in reports
        ],
    }


def exit_code(reports: Sequence[Report]) -> int:
    """0 valid, 1 invalid, 2 unknown."""
    return EXIT_CODES[verdict_of([finding for one in reports for finding in one.findings])]
