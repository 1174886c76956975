"""Rates and latencies, second by second."""

from __future__ import annotations

import pytest

from chaos.history import Outcome
from chaos.timeline import timeline_of
from tests.chaos.histories import Story


def test_each_second_has_its_rates() -> None:
    """Of what was written, what arrived and what went wrong."""
    story = Story().write(1, 0.5).write(2, 0.6).write(3, 2.5, outcome=Outcome.NO).read(1, 1.5)
    rates = timeline_of(story.told()).rates
    assert rates["written"][:4] == [2, 0, 1, 0]
    assert rates["delivered"][:4] == [0, 1, 0, 0]
    assert rates["failed or unknown"][:4] == [0, 0, 1, 0]


def test_each_second_has_quantiles_of_its_latencies() -> None:
    """By nearest rank; a second without writes has none."""
    story = Story()
    for number in range(1, 101):
        story.write(number, 0.5, took_s=number / 1000).read(number, 0.5 + number / 100)
    timeline = timeline_of(story.told())
    half, most, longest = (timeline.calls_ms[name] for name in ("half", "99 %", "longest"))
    assert [half[0], most[0], longest[0]] == pytest.approx([50, 99, 100])
    assert (half[1], most[1], longest[1]) == (None, None, None)
    assert timeline.transits_ms["longest"][0] == pytest.approx(1000)


def test_windows_are_told_from_the_begin() -> None:
    """As the page shows them."""
    (window,) = timeline_of(Story().fault(2.0, 4.0, shards=("shard-1",)).told()).windows
    assert (window.began_s, window.ended_s, window.shards) == (2.0, 4.0, ("shard-1",))
