"""Many runs together."""

from __future__ import annotations

import json

import pytest

from chaos.history import MalformedHistory, Outcome
from chaos.report import as_json, judge
from chaos.totals import fault_table, saved, told, totals_of
from tests.chaos.histories import Story


def test_runs_are_added_up() -> None:
    """What was refused for certain is no message that was sent."""
    good = Story().fault(0.5, 2.0, shards=("shard-0",)).write(1, 1.0).read(1, 1.1)
    good.write(2, 1.2, outcome=Outcome.NO).write(3, 1.3, outcome=Outcome.UNKNOWN)
    bad = Story().write(1, 1.0).read(1, 1.1).read(1, 1.2)
    totals = totals_of([judge(good.told()), judge(bad.told())])
    assert (totals.written, totals.sent, totals.unknown, totals.deliveries) == (4, 3, 1, 3)
    assert totals.struck == {"shard-kill": 1}
    assert totals.workloads["shard-kill"] == {"story"}
    assert totals.broken["P1"] == 1
    assert "broken: P1 1" in told(totals)


def test_reports_can_be_read_again() -> None:
    """For runs that were made one after the other; the sums are the same."""
    story = Story().fault(0.5, 2.0, shards=("shard-0",)).write(1, 1.0).read(1, 1.1)
    reports = [judge(story.told()), judge(Story().write(1, 1.0).read(1, 1.1).told())]
    again = totals_of(saved(json.dumps(as_json(reports))))
    assert again == totals_of(reports)
    assert fault_table(again)[-1] == "| `shard-kill` | story | 1 |  |"
    with pytest.raises(MalformedHistory):
        saved("[]")
