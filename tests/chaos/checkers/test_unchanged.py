"""P5, P7 and P10: what changes nothing is no excuse for anything."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from chaos.checkers import loss, unchanged
from chaos.checkers.base import Verdict
from chaos.history import Life, Outcome, Window
from tests.chaos.histories import Story

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN
KINDS = ("P5", "P7", "P10")


def while_it_lasts(invariant: str, **more: Any) -> Story:
    """From 2 to 4 s."""
    window = Window("add-shard", 2.0, 4.0, effect=1, invariant=invariant, **more)
    return Story(windows=[window])


@pytest.mark.parametrize("invariant", KINDS)
def test_traffic_as_always_is_accepted(invariant: str) -> None:
    """Written meanwhile and delivered; operations outside of it are not counted."""
    story = while_it_lasts(invariant).write(1, 1.0).write(2, 3.0).read(1, 1.1).read(2, 3.1)
    found = unchanged.check(invariant, story.told())
    assert (found.verdict, found.examined) == (VALID, 1)


@pytest.mark.parametrize("invariant", KINDS)
def test_without_such_a_time_nothing_is_proved(invariant: str) -> None:
    """Neither without a window, nor with one in which nobody did anything."""
    check = partial(unchanged.check, invariant)
    assert check(Story().write(1, 3.0).read(1, 3.1).told()).verdict is UNKNOWN
    assert check(while_it_lasts(invariant).write(1, 9.0).read(1, 9.1).told()).verdict is UNKNOWN


@pytest.mark.parametrize("outcome", [Outcome.NO, Outcome.UNKNOWN])
def test_an_operation_that_fails_meanwhile_is_rejected(outcome: Outcome) -> None:
    """Whether it is definite or not; a full channel has another reason."""
    story = while_it_lasts("P7").write(1, 3.0, outcome=outcome, error="ShardUnavailable")
    assert unchanged.P7(story.told()).verdict is INVALID
    full = while_it_lasts("P7").write(1, 3.0, outcome=Outcome.NO, error="ChannelFull")
    assert unchanged.P7(full.told()).verdict is VALID


def test_a_loss_meanwhile_is_rejected() -> None:
    """Acknowledged during the change, and it never came."""
    assert unchanged.P5(while_it_lasts("P5").write(1, 3.0).told()).verdict is INVALID


def test_another_fault_at_the_same_time_is_an_excuse() -> None:
    """In a storm both happen."""
    story = while_it_lasts("P7").write(1, 3.0, outcome=Outcome.NO, error="ShardUnavailable")
    story.fault(2.5, 3.5, shards=("shard-0",))
    assert unchanged.P7(story.told()).verdict is VALID


def test_what_moves_may_have_met_a_fault_anywhere() -> None:
    """Nobody knows where a write went during a change; without one, everybody does."""
    for invariant, verdict in (("P5", VALID), ("P7", INVALID)):
        story = while_it_lasts(invariant).write(1, 3.0, outcome=Outcome.UNKNOWN, error="Unknown")
        story.fault(2.5, 3.5, shards=("shard-1",))
        assert unchanged.check(invariant, story.told()).verdict is verdict


def test_a_loss_after_a_change_is_rejected() -> None:
    """Its window explains nothing; a fault near it does, on whatever shard."""
    story = while_it_lasts("P5").write(1, 3.0).read(1, 3.1).write(2, 9.0)
    assert loss.check(story.told()).verdict is INVALID
    story.fault(8.9, 9.1, shards=("shard-1",))
    assert loss.check(story.told()).verdict is VALID


def test_it_counts_where_it_happens() -> None:
    """A wrong clock of one process says nothing about the operations of another."""
    story = while_it_lasts("P10", processes=("p7",)).write(1, 3.0).read(1, 3.1)
    assert unchanged.P10(story.told()).verdict is UNKNOWN


def test_a_process_that_starts_meanwhile_must_come_up() -> None:
    """P7: from its last-good copy."""
    story = while_it_lasts("P7").write(1, 3.0).read(1, 3.1)
    lives = (Life("p0.0", 0.0, 110.0), Life("p1.0", 0.0, 110.0), Life("p2.1", 3.0, 110.0))
    found = unchanged.P7(story.told(lives=lives))
    assert found.verdict is INVALID
    assert "p2.1" in found.violations[0]
    slow = (*lives[:2], Life("p2.1", 3.0, 110.0, ready_s=99.0))
    assert unchanged.P7(story.told(lives=slow)).verdict is VALID
    came_up = (Life("p0.0", 3.0, 110.0), Life("p1.0", 0.0, 110.0))
    assert unchanged.P7(story.told(lives=came_up)).verdict is VALID
