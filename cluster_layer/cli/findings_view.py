"""Findings as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster_layer.diagnosis import Finding, Severity, worst

_STYLES = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.PROBLEM: "bold red",
}


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """The worst first; what is to be done stands below what was found."""
    table = Table(box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    table.add_column("rule", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("what", overflow="fold")
    for finding in findings:
        what = Text(finding.what)
        if finding.remedy:
            what.append(f"\n-> {finding.remedy}", style="dim")
        severity = Text(str(finding.severity), style=_STYLES[finding.severity])
        table.add_row(severity, finding.rule, Text(finding.where), what)
    return Group(table, _summary(findings))


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "worst": str(worst(findings)),
        "findings": [
            {
                "severity": str(finding.severity),
                "rule": finding.rule,
                "where": finding.where,
                "what": finding.what,
                "remedy": finding.remedy or None,
            }
            for finding in findings
        ],
    }


def _summary(findings: Sequence[Finding]) -> Text:
    counts = Counter(finding.severity for finding in findings)
    return Text(
        ", ".join(
            f"{counts[severity]} {severity}{'s' if severity and counts[severity] > 1 else ''}"
            for severity in sorted(counts, reverse=True)
        )
    )
