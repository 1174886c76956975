"""What people and programs are told about runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from chaos.page import page
from chaos.report import Report, as_json, exit_code, judge, summary
from tests.chaos.histories import Story


def report(*, twice: bool = False, nothing: bool = False) -> Report:
    story = Story().fault(0.5, 2.0, shards=("shard-0",))
    if not nothing:
        story.write(1, 1.0).read(1, 1.1)
    if twice:
        story.read(1, 1.2)
    return judge(story.told())


def test_exit_codes_tell_valid_invalid_and_unknown_apart() -> None:
    """The worst of several runs counts."""
    good, bad, empty = report(), report(twice=True), report(nothing=True)
    assert [exit_code([one]) for one in (good, bad, empty)] == [0, 1, 2]
    assert exit_code([good, empty, bad]) == 1
    assert exit_code([good, empty]) == 2


def test_the_summary_shows_verdicts_and_violations() -> None:
    """In words."""
    text = summary(report(twice=True))
    assert text.startswith("INVALID  story, seed 1: 1 writes")
    assert "P1        invalid         2 examined" in text
    assert "p0.0/w/1 came to" in text


def test_json_holds_the_findings() -> None:
    """And is JSON."""
    found = json.loads(json.dumps(as_json([report(), report(twice=True)])))
    assert found["verdict"] == "invalid"
    assert [run["verdict"] for run in found["runs"]] == ["valid", "invalid"]
    assert found["runs"][1]["findings"][0]["violations"]


class Links(HTMLParser):
    """Collects whatever a page would load, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "polyline":
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    """Its links point into itself; the verdicts and the faults are in it."""
    html = page([report(), report(twice=True)])
    links = Links()
    links.feed(html)
    assert not links.open
    assert links.loaded == ["#run0", "#run1"]
    assert "Chaos report: invalid" in html
    assert html.count("shard-kill") >= 2
