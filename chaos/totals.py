"""What many runs have shown together; pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.checkers.base import Finding, Verdict
from chaos.history import Header, MalformedHistory, Window
from chaos.report import FaultRow, Report
from chaos.timeline import NOTHING


@dataclass(slots=True)
class Totals:
    """Sums over runs. `struck` counts strikes of a fault that provably had an effect."""

    runs: Counter[Verdict] = field(default_factory=Counter)
    scenarios: set[str] = field(default_factory=set)
    seeds: set[int] = field(default_factory=set)
    written: int = 0
    sent: int = 0  # written, and not refused for certain
    unknown: int = 0
    deliveries: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    workloads: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    broken: Counter[str] = field(default_factory=Counter)
    examined: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    heal_s: dict[str, float] = field(default_factory=dict)  # the longest, by fault
    longest_call_s: float = 0.0

    def add(self, report: Report) -> None:
        self.scenarios.add(report.header.scenario)
        self.runs[report.verdict] += 1
        self.seeds.add(report.header.seed)
        self.written += report.writes
        self.sent += report.sent
        self.unknown += report.unknown
        self.deliveries += report.deliveries
        workload = report.header.scenario.partition("/")[0]
        for row in report.faults:
            if row.window.effect > 0:
                self.struck[row.window.fault] += 1
                self.workloads[row.window.fault].add(workload)
            if row.heal_s is not None:
                longest = max(self.heal_s.get(row.window.fault, 0.0), row.heal_s)
                self.heal_s[row.window.fault] = longest
        for one in report.findings:
            self.examined[one.invariant] += one.examined
            self.broken[one.invariant] += one.broken if one.verdict is Verdict.INVALID else 0
            for name, figure in one.figures.items():
                if name.startswith("lost: "):
                    self.lost[name.removeprefix("lost: ")] += int(figure)
                elif name == "longest call s":
                    self.longest_call_s = max(self.longest_call_s, figure)


def totals_of(reports: Sequence[Report]) -> Totals:
    totals = Totals()
    for report in reports:
        totals.add(report)
    return totals


def saved(text: str) -> list[Report]:
    """The runs of a report.json, without what happened in them; MalformedHistory."""
    try:
        return [_report(run) for run in json.loads(text)["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedHistory("this is no report.json") from error


def _report(run: Mapping[str, Any]) -> Report:
    findings = (Finding(**{**one, "verdict": Verdict(one["verdict"])}) for one in run["findings"])
    rows = (FaultRow(**{**row, "window": Window(**row["window"])}) for row in run["faults"])
    counts = {name: run[name] for name in ("writes", "sent", "unknown", "deliveries")}
    return Report(
        header=Header(**run["header"]),
        findings=tuple(findings),
        faults=tuple(rows),
        timeline=NOTHING,
        **counts,
    )


def fault_table(totals: Totals) -> list[str]:
    """As Markdown: each fault with the workloads in which it struck, how often, how it healed."""
    rows = ["| fault | workloads | strikes | longest healing, s |", "|---|---|---|---|"]
    for fault, strikes in sorted(totals.struck.items()):
        workloads = " ".join(sorted(totals.workloads[fault]))
        heal_s = totals.heal_s.get(fault)
        healed = "" if heal_s is None else f"{heal_s:.2f}"
        rows.append(f"| `{fault}` | {workloads} | {strikes} | {healed} |")
    return rows


def told(totals: Totals) -> list[str]:
    """For a terminal, and for whoever writes it down."""
    runs = ", ".join(f"{count} {verdict}" for verdict, count in sorted(totals.runs.items()))
    broken = [f"{name} {count:,}" for name, count in sorted(totals.broken.items()) if count]
    strikes = sum(totals.struck.values())
    lines = [
        f"runs: {runs}, of {len(totals.scenarios)} scenarios; "
        f"seeds {min(totals.seeds)} to {max(totals.seeds)}",
        f"messages: {totals.sent:,} sent ({totals.written - totals.sent:,} more were refused), "
        f"{totals.deliveries:,} deliveries, {totals.unknown:,} of unknown outcome",
        f"faults: {strikes:,} strikes of {len(totals.struck)} kinds; "
        f"the longest call took {totals.longest_call_s:.2f} s",
        f"broken: {', '.join(broken) or 'nothing'}",
    ]
    lost = [f"{count:,} {reason}" for reason, count in totals.lost.most_common()]
    lines.append(f"lost: {', '.join(lost) or 'nothing'}")
    return lines
