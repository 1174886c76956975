"""The report, looked at in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.page import page
from chaos.report import judge
from tests.chaos.histories import Story
from tests.support.browser import Page, find_chromium, running_chromium

WIDTH = 900  # of the charts, in their own units


def story() -> Story:
    """Ten seconds with three overlapping faults, slow and fast calls, and a message twice."""
    story = Story()
    for number in range(1, 400):
        took_s = 3.0 if number == 77 else 0.001 * (1 + number % 9)
        story.write(number, number / 40, took_s=took_s).read(number, number / 40 + took_s / 2)
    story.fault(1.0, 3.0, shards=("shard-0",)).fault(1.5, 4.0).fault(2.0, 2.2, processes=("p1",))
    return story.read(5, 9.0)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no chromium here")
    path = tmp_path_factory.mktemp("report") / "report.html"
    calm = Story().write(1, 1.0).read(1, 1.1)
    history, control = story().told(), calm.told()
    path.write_text(page([judge(history), judge(control)]), encoding="utf-8")
    with running_chromium(chromium) as browser, browser.page() as opened:
        opened.open(path.as_uri())
        yield opened


def test_it_loads_nothing_and_has_no_error(shown: Page) -> None:
    """All that it needs is in it."""
    assert shown.errors == []
    assert shown.evaluate("performance.getEntriesByType('resource').length") == 0


def test_it_says_what_was_found(shown: Page) -> None:
    """The verdict first, then each promise, each fault, and the violation with its slice."""
    assert shown.evaluate("document.querySelector('h1').innerText") == "Chaos report: invalid"
    text = shown.evaluate("document.body.innerText")
    assert "2 runs, 400 messages sent, 401 deliveries, 3 faults." in text
    assert "p0.0/w/5 came to specific.p1!a twice" in text
    assert "the smallest slice of the history that shows it" in text
    assert text.count("shard-kill") >= 3


def test_every_chart_can_be_seen_whole(shown: Page) -> None:
    """Three of each run, with lines in them; no label reaches beyond its picture."""
    charts = "[...document.querySelectorAll('svg')]"
    assert shown.evaluate(f"{charts}.length") == 6
    assert shown.evaluate(f"{charts}.every(s => s.getBoundingClientRect().height > 80)")
    assert shown.evaluate(f"{charts}.slice(0, 3).every(s => s.querySelector('polyline'))")
    beyond = shown.evaluate(
        f"{charts}.flatMap(s => [...s.querySelectorAll('text')]).filter(t => {{"
        f"const box = t.getBBox(); return box.x < 0 || box.x + box.width > {WIDTH};"
        "}).map(t => t.textContent)"
    )
    assert beyond == []


def test_faults_are_shaded_where_they_were(shown: Page) -> None:
    """The first from a hundredth to three hundredths of the run, in every chart."""
    shades = shown.evaluate(
        "[...document.querySelectorAll('svg')].slice(0, 3).map(s => [...s.querySelectorAll('rect')]"
        ".map(r => [+r.getAttribute('x'), +r.getAttribute('width')]))"
    )
    assert [len(chart) for chart in shades] == [3, 3, 3]
    left = 62
    (x, width) = shades[0][0]
    assert x == pytest.approx(left + (WIDTH - left) * 1 / 110, abs=1)
    assert width == pytest.approx((WIDTH - left) * 2 / 110, abs=1)


def test_a_narrow_window_needs_no_sideways_scrolling(shown: Page, tmp_path: Path) -> None:
    """On a laptop's half screen."""
    shown.screenshot(tmp_path / "narrow.png", width=760, height=900)
    assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
