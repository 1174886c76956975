"""One self-contained HTML page about some runs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from chaos.charts import latency_chart, rates_chart
from chaos.checkers import verdict_of
from chaos.checkers.base import Finding, Verdict
from chaos.report import FaultRow, Report, shown_violations, told

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem;
  color: #1c2430; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 3rem } h3 { font-size: 1rem }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: 14px }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #dfe4ea;
  vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.valid { color: #14692f } .invalid { color: #b3131f } .unknown { color: #8a5a00 }
.verdict { font-weight: 600 }
svg { width: 100%; height: auto; background: #f7f9fb; margin-bottom: .5rem }
svg text { font: 11px system-ui, sans-serif; fill: #4a5563 } svg .title { font-weight: 600 }
svg .grid { stroke: #dfe4ea; stroke-width: 1 }
pre { white-space: pre-wrap; background: #fdf3f3; padding: .6rem; font-size: 13px }
.small { color: #4a5563; font-size: 13px }
"""

_MEANINGS: Final = {
    "P1": "delivered at most once",
    "P2": "only what was sent, only to whom it was addressed",
    "P3": "in the order in which one task wrote",
    "P4": "every loss is explained",
    "P5": "planned changes lose nothing",
    "P6": "heals by itself within 5 s",
    "P7": "works on without ZooKeeper",
    "P8": "every wait and every key has a bound",
    "P9": "errors say whether it may have happened",
    "P10": "wrong clocks change nothing",
    "substance": "something was really put to the test",
}


def page(reports: Sequence[Report]) -> str:
    """The whole page; nothing in it is loaded from elsewhere."""
    verdict = verdict_of([finding for one in reports for finding in one.findings])
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Chaos report: {verdict}</title><style>{_STYLE}</style></head><body>",
            f'<h1>Chaos report: <span class="{verdict}">{verdict}</span></h1>',
            *_overview(reports),
            *(_run(index, one) for index, one in enumerate(reports)),
            "</body></html>",
        ]
    )


def _overview(reports: Sequence[Report]) -> list[str]:
    writes = sum(one.writes for one in reports)
    deliveries = sum(one.deliveries for one in reports)
    faults = sum(len(one.faults) for one in reports)
    return [
        f"<p>{len(reports)} runs, {writes:,} messages sent, {deliveries:,} deliveries, "
        f"{faults:,} faults.</p>",
        _promises(reports),
        *_comparison(reports),
        '<table><tr><th>run</th><th>verdict</th><th class="number">sent</th>',
        '<th class="number">deliveries</th><th class="number">faults</th></tr>',
        *(_row(index, one) for index, one in enumerate(reports)),
        "</table>",
    ]


def _promises(reports: Sequence[Report]) -> str:
    """Each promise over all runs."""
    rows = []
    for invariant, meaning in _MEANINGS.items():
        findings = [
            one for report in reports for one in report.findings if one.invariant == invariant
        ]
        if not findings:
            continue
        verdicts = [one.verdict for one in findings]
        shown = ", ".join(
            f'<span class="{verdict}">{verdicts.count(verdict)} {verdict}</span>'
            for verdict in Verdict
            if verdict in verdicts
        )
        examined = sum(one.examined for one in findings)
        rows.append(
            f"<tr><td>{invariant}</td><td>{meaning}</td><td>{shown}</td>"
            f'<td class="number">{examined:,}</td></tr>'
        )
    head = '<th>promise</th><th></th><th>runs</th><th class="number">examined</th>'
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _comparison(reports: Sequence[Report]) -> list[str]:
    """How often each layer broke each promise, in the same scenarios; if there are several."""
    layers = list(dict.fromkeys(one.header.layer for one in reports))
    if len(layers) < 2:
        return []
    head = "".join(f'<th class="number">{escape(layer)}</th>' for layer in layers)
    rows = []
    for scenario in dict.fromkeys(one.header.scenario for one in reports):
        of = {one.header.layer: one for one in reports if one.header.scenario == scenario}
        cells = "".join(
            f'<td class="number">{_broken(of[layer]) if layer in of else ""}</td>'
            for layer in layers
        )
        rows.append(f"<tr><td>{escape(scenario)}</td>{cells}</tr>")
    return [
        "<h2>Beside each other</h2>",
        "<p>How often each promise was broken. P1: delivered twice, P2: to the wrong one, P3: out "
        "of order, P4: lost without a reason, P6: not healed, or receive() raised, P8: hung, P9: a "
        "foreign error.</p>",
        f"<table><tr><th>scenario</th>{head}</tr>{''.join(rows)}</table>",
    ]


def _broken(report: Report) -> str:
    broken = [
        f"{one.invariant}: {one.broken:,}"
        for one in report.findings
        if one.verdict is Verdict.INVALID
    ]
    return f'<span class="{report.verdict}">{", ".join(broken) or report.verdict}</span>'


def _row(index: int, report: Report) -> str:
    cells = (report.writes, report.deliveries, len(report.faults))
    numbers = "".join(f'<td class="number">{cell:,}</td>' for cell in cells)
    link = f'<a href="#run{index}">{escape(report.title)}</a>'
    return f"<tr><td>{link}</td>{_verdict(report.verdict)}{numbers}</tr>"


def _verdict(verdict: str) -> str:
    return f'<td class="verdict {verdict}">{verdict}</td>'


def _run(index: int, report: Report) -> str:
    header, timeline = report.header, report.timeline
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    command = (
        f"cluster-chaos run {header.scenario} --seed {header.seed} "
        f"--seconds {header.quiet_s - header.began_s:g}"
    )
    return "\n".join(
        [
            f'<h2 id="run{index}">{escape(report.title)}</h2>',
            f'<p class="small">{escape(versions)}; environment {escape(header.environment)}; '
            f"<code>{escape(command)}</code></p>",
            rates_chart(timeline),
            latency_chart(timeline, timeline.calls_ms, "a write returns after"),
            latency_chart(timeline, timeline.transits_ms, "a message arrives after"),
            "<table><tr><th>promise</th><th>verdict</th>",
            '<th class="number">examined</th><th>seen</th></tr>',
            *map(_finding, report.findings),
            "</table>",
            _faults(report),
            *_violations(report),
        ]
    )


def _finding(finding: Finding) -> str:
    figures = ", ".join(f"{name} {value:g}" for name, value in finding.figures.items())
    meaning = _MEANINGS.get(finding.invariant, "")
    return (
        f'<tr><td title="{escape(meaning)}">{escape(finding.invariant)}</td>'
        f'{_verdict(finding.verdict)}<td class="number">{finding.examined:,}</td>'
        f"<td>{escape(figures)}</td></tr>"
    )


def _faults(report: Report) -> str:
    if not report.faults:
        return "<p>No faults.</p>"
    text = ("fault", "from", "to", "shards", "processes")
    numbers = ("struck", "sent", "delivered", "failed", "unknown")
    head = "".join(f"<th>{name}</th>" for name in text)
    head += "".join(f'<th class="number">{name}</th>' for name in numbers)
    head += '<th>lost</th><th class="number">healed after</th>'
    began_s = report.header.began_s
    rows = "".join(_fault(row, began_s) for row in report.faults)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _fault(row: FaultRow, began_s: float) -> str:
    window = row.window
    text = (
        window.fault,
        f"{window.began_s - began_s:.1f} s",
        f"{window.ended_s - began_s:.1f} s",
        ", ".join(window.shards) or "all",
        ", ".join(window.processes) or "all",
    )
    numbers = (window.effect, row.sent, row.delivered, row.failed, row.unknown)
    lost = ", ".join(f"{count} {reason}" for reason, count in row.lost.items())
    healed = "" if row.heal_s is None else f"{row.heal_s:.2f} s"
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in text)
    cells += "".join(f'<td class="number">{number:,}</td>' for number in numbers)
    return f'<tr>{cells}<td>{escape(lost)}</td><td class="number">{healed}</td></tr>'


def _violations(report: Report) -> list[str]:
    parts = []
    for one in report.findings:
        if not one.violations:
            continue
        text = "\n".join(shown_violations(one))
        parts.append(f"<h3>{escape(one.invariant)}</h3><pre>{escape(text)}</pre>")
    for found in report.slices:
        lines = "\n".join(told(found, report.header.began_s))
        parts.append(
            f"<h3>{escape(found.invariant)}: the smallest slice of the history that shows it</h3>"
            f'<p class="small">{escape(found.violation)}</p><pre>{escape(lines)}</pre>'
        )
    return parts
