"""What a run has shown, for people and for programs; pure.

A report holds figures, not the history: that may be large, and is checked once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from chaos.checkers import CHECKERS, check, verdict_of
from chaos.checkers.base import (
    Finding,
    Verdict,
    first_arrivals_s,
    host_of,
    messages,
    writes_in_time,
)
from chaos.checkers.heal import healing_times_s
from chaos.checkers.loss import losses
from chaos.history import Header, History, Operation, Outcome, Window, event_of
from chaos.slices import Slice, smallest_slice, time_of
from chaos.timeline import Timeline, timeline_of

EXIT_CODES: Final = {Verdict.VALID: 0, Verdict.INVALID: 1, Verdict.UNKNOWN: 2}
MAX_SLICES: Final = 2  # per invariant
#: Their violations are about all that happened in some seconds: no small part shows that.
UNSLICED: Final = ("P6", "substance")


@dataclass(frozen=True, slots=True)
class FaultRow:
    """What happened while a fault was in force, to the writes that it could touch.

    `delivered` of them arrived anywhere, `lost` says which of their deliveries did not come, by
    reason. `heal_s` None: it could not be told.
    """

    window: Window
    sent: int
    delivered: int
    failed: int
    unknown: int
    lost: Mapping[str, int]
    heal_s: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """One run, judged. `sent` are the writes that were not refused for certain."""

    header: Header
    findings: tuple[Finding, ...]
    writes: int
    sent: int
    unknown: int
    deliveries: int
    faults: tuple[FaultRow, ...]
    timeline: Timeline
    slices: tuple[Slice, ...] = ()
    history_file: str = field(default="", compare=False)

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def title(self) -> str:
        of = "" if self.header.layer == "cluster-layer" else f" ({self.header.layer})"
        return f"{self.header.scenario}, seed {self.header.seed}{of}"


def judge(history: History, history_file: str = "") -> Report:
    """Check a history, and take from it all that is shown."""
    findings = check(history)
    outcomes = Counter(one.outcome for one in messages(history).values())
    return Report(
        header=history.header,
        findings=findings,
        writes=outcomes.total(),
        sent=outcomes.total() - outcomes[Outcome.NO],
        unknown=outcomes[Outcome.UNKNOWN],
        deliveries=len(history.deliveries),
        faults=_fault_rows(history),
        timeline=timeline_of(history),
        slices=_slices(history, findings),
        history_file=history_file,
    )


def _slices(history: History, findings: Sequence[Finding]) -> tuple[Slice, ...]:
    found = []
    for one in findings:
        if one.verdict is not Verdict.INVALID or one.invariant in UNSLICED:
            continue
        checker = CHECKERS[one.invariant]
        found += [
            smallest_slice(
                one.invariant,
                violation,
                history,
                lambda part, checker=checker: checker(part).violations,  # type: ignore[misc]
            )
            for violation in one.violations[:MAX_SLICES]
        ]
    return tuple(found)


def _fault_rows(history: History) -> tuple[FaultRow, ...]:
    if not history.windows:
        return ()
    arrived = first_arrivals_s(history)
    found = losses(history)
    lost: dict[str, list[str]] = defaultdict(list)
    for write, reason in found.explained:
        lost[write.id].append(reason)
    for write, _ in found.unexplained:
        lost[write.id].append("unexplained")
    healed = {id(window): seconds for window, seconds in healing_times_s(history)}
    writes = writes_in_time(history)
    return tuple(
        _fault_row(
            window,
            [one for one in writes.begun(window.began_s, window.ended_s) if _touches(window, one)],
            arrived,
            lost,
            healed.get(id(window)),
        )
        for window in history.windows
    )


def _touches(window: Window, one: Operation) -> bool:
    return (not window.shards or one.shard in window.shards) and (
        not window.processes or host_of(one.process) in window.processes
    )


def _fault_row(
    window: Window,
    writes: Sequence[Operation],
    arrived: Mapping[str, float],
    lost: Mapping[str, Sequence[str]],
    heal_s: float | None,
) -> FaultRow:
    outcomes = Counter(one.outcome for one in writes)
    reasons = Counter(reason for one in writes for reason in lost.get(one.id, ()))
    return FaultRow(
        window,
        sent=len(writes),
        delivered=sum(one.message in arrived for one in writes),
        failed=outcomes[Outcome.NO],
        unknown=outcomes[Outcome.UNKNOWN],
        lost=dict(sorted(reasons.items())),
        heal_s=heal_s,
    )


def summary(report: Report) -> str:
    """A few lines for a terminal."""
    seconds = report.header.quiet_s - report.header.began_s
    lines = [
        f"{report.verdict.upper():8} {report.title}: {report.writes} writes in "
        f"{seconds:.0f} s, {report.deliveries} deliveries, {len(report.faults)} faults"
    ]
    for one in report.findings:
        figures = ", ".join(f"{name} {value:g}" for name, value in one.figures.items())
        lines.append(f"  {one.invariant:9} {one.verdict:8} {one.examined:8} examined  {figures}")
        lines += [f"      {violation}" for violation in shown_violations(one)]
    for found in report.slices:
        lines.append(f"  the smallest slice that shows it ({found.invariant}):")
        lines += [f"      {line}" for line in told(found, report.header.began_s)]
    return "\n".join(lines)


def shown_violations(finding: Finding) -> list[str]:
    """The first of them, and how many more there were."""
    more = finding.broken - len(finding.violations)
    return [*finding.violations, *([f"... and {more} more"] if more > 0 else [])]


def told(found: Slice, began_s: float) -> list[str]:
    """A slice in words, times in seconds since the run began."""
    lines = [f"{_when(time_of(event), began_s)}  {_event_told(event)}" for event in found.events]
    if found.context:
        lines.append("besides:")
    lines += [f"{_when(one.invoked_s, began_s)}  {_event_told(one)}" for one in found.context]
    lines += [
        f"meanwhile  {window.fault} from {window.began_s - began_s:.3f} s to "
        f"{window.ended_s - began_s:.3f} s, on {_all(window.shards)}, {_all(window.processes)}"
        for window in found.meanwhile
    ]
    return lines


def _when(at_s: float, began_s: float) -> str:
    return "at the end" if at_s == float("inf") else f"{at_s - began_s:8.3f} s"


def _event_told(event: Any) -> str:
    if isinstance(event, Operation):
        number = f" number {event.number}" if event.number else ""
        what = f"{event.verb}{number} to {event.name}{' of ' * bool(event.member)}{event.member}"
        took = (
            "never returned"
            if event.completed_s is None
            else f"{event.outcome} after {event.completed_s - event.invoked_s:.3f} s"
        )
        error = f" ({event.error})" if event.error else ""
        return f"{event.writer}: {what} by way of {event.shard}: {took}{error}"
    values = {name: value for name, value in event_of(event).items() if name != "e"}
    shown = ", ".join(f"{name} {value}" for name, value in values.items() if name != "at_s")
    return f"{type(event).__name__.lower()}: {shown}"


def _all(names: Sequence[str]) -> str:
    return " ".join(names) or "all"


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Everything but the histories."""
    return {
        "verdict": verdict_of([finding for one in reports for finding in one.findings]),
        "runs": [
            {
                "header": asdict(one.header),
                "verdict": one.verdict,
                "writes": one.writes,
                "sent": one.sent,
                "unknown": one.unknown,
                "deliveries": one.deliveries,
                "faults": [asdict(row) for row in one.faults],
                "findings": [asdict(finding) for finding in one.findings],
                "slices": [
                    {
                        "invariant": found.invariant,
                        "violation": found.violation,
                        "events": [_shown(event) for event in found.events],
                        "context": [_shown(one) for one in found.context],
                        "meanwhile": [asdict(window) for window in found.meanwhile],
                    }
                    for found in one.slices
                ],
                "history": one.history_file,
            }
            for one in reports
        ],
    }


def _shown(event: Any) -> Mapping[str, Any]:
    if isinstance(event, Operation):
        return {"e": "operation", **asdict(event)}
    return event_of(event)


def exit_code(reports: Sequence[Report]) -> int:
    """0 valid, 1 invalid, 2 unknown."""
    return EXIT_CODES[verdict_of([finding for one in reports for finding in one.findings])]
