"""P6: the names of a lost shard get new homes in time."""

from __future__ import annotations

from typing import Any

from chaos.checkers import heal
from chaos.checkers.base import Finding, Verdict
from chaos.history import Life, Outcome, Window
from tests.chaos.histories import Story

LOST_AT_S = 10.0


def lost_for_good() -> Story:
    """shard-0 is lost from 10 to 20 s; its one name was written to before."""
    window = Window("shard-lost", LOST_AT_S, 20.0, ("shard-0",), effect=1, rehomed_within_s=5.0)
    return Story(windows=[window]).write(1, 5.0).read(1, 5.1)


def judged(story: Story, **more: Any) -> Finding:
    return heal.check(story.told(**more))


def test_served_by_another_shard_in_time_is_accepted() -> None:
    """Refused at first, then by way of another shard; the time is told."""
    story = lost_for_good().write(2, 10.5, outcome=Outcome.NO)
    found = judged(story.write(3, 13.0, shard="shard-1").read(3, 13.2))
    assert (found.verdict, found.examined) == (Verdict.VALID, 1)
    assert found.figures["new homes s: shard-lost"] == 3.2


def test_too_late_is_rejected() -> None:
    """The bound is from the loss to the delivery."""
    story = lost_for_good().write(2, 10.5, outcome=Outcome.NO)
    found = judged(story.write(3, 15.0, shard="shard-1").read(3, 15.2))
    assert found.verdict is Verdict.INVALID
    assert "was served again 5.200 s later" in found.violations[0]


def test_acknowledged_and_never_delivered_is_not_served() -> None:
    """A write that nobody gets proves nothing."""
    story = lost_for_good()
    for number in range(2, 12):
        story.write(number, 8.5 + number, shard="shard-1")
    assert "never" in judged(story).violations[0]


def test_what_the_shard_did_before_it_was_dead_is_not_served() -> None:
    """A container takes a moment to be killed."""
    story = lost_for_good().write(2, 10.2).read(2, 10.3)
    found = judged(story.write(3, 13.0, shard="shard-1").read(3, 13.2))
    assert found.figures["new homes s: shard-lost"] == 3.2
    story = lost_for_good().write(2, 10.2).read(2, 10.3).write(3, 15.5, outcome=Outcome.NO)
    assert "never" in judged(story).violations[0]


def test_who_does_not_write_learns_nothing() -> None:
    """Neither a name that nobody tried when the time was over, nor one of another shard."""
    assert judged(lost_for_good().write(2, 12.0, outcome=Outcome.NO)).examined == 0
    story = lost_for_good().write(2, 9.0, to="elsewhere", shard="shard-1")
    assert judged(story.write(3, 16.0, to="elsewhere", shard="shard-1")).examined == 0


def test_a_reader_that_has_died_is_not_served() -> None:
    """Nobody else may serve its channels."""
    story = lost_for_good().write(2, 16.0, outcome=Outcome.NO)
    lives = (Life("p0.0", 0.0, 110.0), Life("p1.0", 0.0, 9.0, killed=True))
    assert judged(story, lives=lives).examined == 0
