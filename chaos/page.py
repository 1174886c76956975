"""One self-contained HTML page about some runs; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from chaos.checkers import verdict_of
from chaos.checkers.base import Finding
from chaos.history import History, Outcome, Window
from chaos.report import Report

STEP_S: Final = 0.25  # of the timeline
WIDTH: Final = 900
HEIGHT: Final = 120
TITLE: Final = 22
LABEL_ROWS: Final = 3  # below the timeline, so that names of faults do not overlap

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: #1c2430; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #dfe4ea;
  vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.valid { color: #14692f } .invalid { color: #b3131f } .unknown { color: #8a5a00 }
.verdict { font-weight: 600 }
svg { width: 100%; height: auto; background: #f7f9fb }
svg text { font: 11px system-ui, sans-serif; fill: #4a5563 }
pre { white-space: pre-wrap; background: #fdf3f3; padding: .6rem; font-size: 13px }
"""


def page(reports: Sequence[Report]) -> str:
    """The whole page; nothing in it is loaded from elsewhere."""
    verdict = verdict_of([finding for one in reports for finding in one.findings])
    rows = [_row(index, one) for index, one in enumerate(reports)]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Chaos report: {verdict}</title><style>{_STYLE}</style></head><body>",
            f'<h1>Chaos report: <span class="{verdict}">{verdict}</span></h1>',
            '<table><tr><th>run</th><th>verdict</th><th class="number">writes</th>',
            '<th class="number">deliveries</th><th class="number">faults</th></tr>',
            *rows,
            "</table>",
            *(_run(index, one) for index, one in enumerate(reports)),
            "</body></html>",
        ]
    )


def _row(index: int, report: Report) -> str:
    history = report.history
    cells = (len(history.writes()), len(history.deliveries), len(history.windows))
    numbers = "".join(f'<td class="number">{cell:,}</td>' for cell in cells)
    link = f'<a href="#run{index}">{escape(report.title)}</a>'
    return f"<tr><td>{link}</td>{_verdict(report.verdict)}{numbers}</tr>"


def _verdict(verdict: str) -> str:
    return f'<td class="verdict {verdict}">{verdict}</td>'


def _run(index: int, report: Report) -> str:
    history = report.history
    versions = ", ".join(f"{name} {version}" for name, version in history.header.versions.items())
    return "\n".join(
        [
            f'<h2 id="run{index}">{escape(report.title)}</h2><p>{escape(versions)}</p>',
            timeline(history),
            "<table><tr><th>promise</th><th>verdict</th>",
            '<th class="number">examined</th><th>seen</th></tr>',
            *map(_finding, report.findings),
            "</table>",
            _faults(history),
            *(
                f"<pre>{escape(one.invariant)}: {escape(violation)}</pre>"
                for one in report.findings
                for violation in one.violations
            ),
        ]
    )


def _finding(finding: Finding) -> str:
    figures = ", ".join(f"{name} {value:g}" for name, value in finding.figures.items())
    return (
        f"<tr><td>{escape(finding.invariant)}</td>{_verdict(finding.verdict)}"
        f'<td class="number">{finding.examined:,}</td><td>{escape(figures)}</td></tr>'
    )


def _faults(history: History) -> str:
    if not history.windows:
        return "<p>No faults.</p>"
    head = "".join(
        f"<th>{name}</th>"
        for name in ("fault", "from", "to", "shards", "processes", "struck", "writes meanwhile")
    )
    rows = [_fault(history, window) for window in history.windows]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _fault(history: History, window: Window) -> str:
    began_s = history.header.began_s
    outcomes = Counter(
        one.outcome
        for one in history.writes()
        if window.began_s <= one.invoked_s <= window.ended_s and one.completed_s is not None
    )
    cells = (
        window.fault,
        f"{window.began_s - began_s:.1f} s",
        f"{window.ended_s - began_s:.1f} s",
        ", ".join(window.shards) or "all",
        ", ".join(window.processes) or "all",
        str(window.effect),
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def timeline(history: History) -> str:
    """Deliveries, failed and unknown writes per second, with the faults shaded."""
    header = history.header
    writes = history.writes()
    failed = [one.invoked_s for one in writes if one.completed_s and one.outcome is not Outcome.OK]
    series = (
        ("deliveries / s", "#2660a4", [one.at_s for one in history.deliveries]),
        ("failed or unknown writes / s", "#b3131f", failed),
    )
    span_s = max(header.ended_s - header.began_s, STEP_S)
    top = max((max(_rates(times, header.began_s, span_s)) for _, _, times in series), default=0.0)
    top = top or 1.0
    parts = [
        f'<svg viewBox="0 {-TITLE} {WIDTH} {TITLE + HEIGHT + 48}" role="img" aria-label="timeline">'
    ]
    parts += [
        _shade(window, header.began_s, span_s, index % LABEL_ROWS)
        for index, window in enumerate(history.windows)
    ]
    for index, (name, colour, times) in enumerate(series):
        points = _points(_rates(times, header.began_s, span_s), top)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(f'<text x="{6 + 110 * index}" y="-7" style="fill:{colour}">{name}</text>')
    parts.append(f'<text x="{WIDTH - 70}" y="-7">{top:,.0f} / s</text>')
    parts.append(f'<text x="{WIDTH - 40}" y="{HEIGHT + 14}">{span_s:.0f} s</text></svg>')
    return "\n".join(parts)


def _shade(window: Window, began_s: float, span_s: float, row: int) -> str:
    left = (window.began_s - began_s) / span_s * WIDTH
    width = max(1.0, (window.ended_s - window.began_s) / span_s * WIDTH)
    return (
        f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}" fill="#f3d9a4" '
        f'fill-opacity=".55"><title>{escape(window.fault)}</title></rect>'
        f'<text x="{left:.1f}" y="{HEIGHT + 14 * (row + 1)}">{escape(window.fault)}</text>'
    )


def _rates(times: Iterable[float], began_s: float, span_s: float) -> list[float]:
    edges = [began_s + STEP_S * step for step in range(int(span_s / STEP_S) + 1)]
    counts = [0] * len(edges)
    for at_s in times:
        counts[max(0, bisect_right(edges, at_s) - 1)] += 1
    return [count / STEP_S for count in counts]


def _points(rates: Sequence[float], top: float) -> str:
    step = WIDTH / max(1, len(rates) - 1)
    return " ".join(
        f"{index * step:.1f},{HEIGHT - rate / top * (HEIGHT - 8):.1f}"
        for index, rate in enumerate(rates)
    )
