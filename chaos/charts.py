"""Lines over time with the faults shaded, as SVG; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import log10
from typing import Final

from chaos.history import Window
from chaos.timeline import Timeline

WIDTH: Final = 900
HEIGHT: Final = 120
LEFT: Final = 62  # for the axis
TITLE: Final = 20
ROW: Final = 13
LABEL_ROWS: Final = 4  # below, so that names of faults do not overlap
COLOURS: Final = ("#2660a4", "#d07a00", "#b3131f")
HARMFUL: Final = "#f0c987"
HARMLESS: Final = "#cfe3cf"

Series = Mapping[str, Sequence[float | None]]


def rates_chart(timeline: Timeline) -> str:
    """Events per second."""
    highest = _highest(timeline.rates) or 1.0
    ticks = [(0.0, "0"), (highest, f"{highest:,.0f}")]
    title = "messages per second"
    return _chart(timeline, timeline.rates, title, lambda value: value / highest, ticks, names=True)


def latency_chart(timeline: Timeline, series: Series, title: str) -> str:
    """Milliseconds, by their logarithm from 0.1 ms on."""
    decades = max(1, int(log10(max(_highest(series), 1.0))) + 2)

    def height(value: float) -> float:
        return max(0.0, (log10(max(value, 0.1)) + 1) / decades)

    ticks = [(10.0**power, f"{10.0**power:g} ms") for power in range(-1, decades)]
    return _chart(timeline, series, title, height, ticks, names=False)


def _highest(series: Series) -> float:
    return max((value for line in series.values() for value in line if value), default=0.0)


def _chart(
    timeline: Timeline,
    series: Series,
    title: str,
    height: Callable[[float], float],
    ticks: Sequence[tuple[float, str]],
    *,
    names: bool,
) -> str:
    rows = LABEL_ROWS if names and timeline.windows else 1
    box = f"0 {-TITLE} {WIDTH} {TITLE + HEIGHT + ROW * rows + 4}"
    parts = [f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">']
    parts += [
        _shade(window, timeline.seconds, index % LABEL_ROWS if names else None)
        for index, window in enumerate(timeline.windows)
    ]
    for value, label in ticks:
        y = HEIGHT * (1 - height(value))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    x = LEFT
    parts.append(f'<text x="{x}" y="-6" class="title">{escape(title)}</text>')
    x += 8 * len(title)
    for (name, values), colour in zip(series.items(), COLOURS, strict=False):
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
            for points in _lines(values, height)
        ]
        parts.append(f'<text x="{x}" y="-6" style="fill:{colour}">{escape(name)}</text>')
        x += 8 * len(name) + 14
    end = f"{timeline.seconds:.0f} s"
    parts.append(f'<text x="{WIDTH - 4}" y="-6" text-anchor="end">{end}</text></svg>')
    return "\n".join(parts)


def _shade(window: Window, seconds: float, row: int | None) -> str:
    left = _x(window.began_s, seconds)
    width = max(1.5, _x(window.ended_s, seconds) - left)
    colour = HARMLESS if window.invariant else HARMFUL
    where = f"{' '.join(window.shards) or 'all shards'}, {' '.join(window.processes) or 'all'}"
    shade = (
        f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}" fill="{colour}" '
        f'fill-opacity=".5"><title>{escape(f"{window.fault} ({where})")}</title></rect>'
    )
    if row is None:
        return shade
    y = HEIGHT + ROW * (row + 1)
    return f'{shade}<text x="{left:.1f}" y="{y}">{escape(window.fault)}</text>'


def _lines(values: Sequence[float | None], height: Callable[[float], float]) -> list[str]:
    """Points of each stretch without gaps; a single point becomes a short line."""
    lines: list[list[str]] = [[]]
    for step, value in enumerate(values):
        if value is None:
            lines.append([])
            continue
        x = _x(step + 0.5, len(values))
        lines[-1].append(f"{x:.1f},{HEIGHT * (1 - height(value)):.1f}")
    return [" ".join(line if len(line) > 1 else line * 2) for line in lines if line]


def _x(at: float, whole: float) -> float:
    return LEFT + max(0.0, min(1.0, at / whole)) * (WIDTH - LEFT)
