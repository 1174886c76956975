"""The smallest part of a history that shows a violation."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checkers import CHECKERS
from chaos.history import Delivery, History, Operation
from chaos.slices import Slice, smallest_slice
from tests.chaos.histories import OTHER, Story


def noise(story: Story) -> Story:
    """Much that is right, around what is wrong."""
    for number in range(100, 200):
        story.write(number, number / 10).read(number, number / 10 + 0.01)
        story.write(1000 + number, number / 10, to=OTHER)
        story.read(1000 + number, number / 10 + 0.01, channel=OTHER)
    return story


def sliced(invariant: str, history: History) -> Slice:
    def violations(part: History) -> Sequence[str]:
        return CHECKERS[invariant](part).violations

    (violation,) = violations(history)
    return smallest_slice(invariant, violation, history, violations)


def test_two_deliveries_show_that_a_message_came_twice() -> None:
    """Of two hundred others none is left; its write and the faults at the time stand beside."""
    story = Story().fault(0.5, 2.0).fault(50.0, 60.0)
    story.join(0.0).write(1, 1.0, group="room").read(1, 1.1).read(1, 1.3)
    found = sliced("P1", noise(story).told())
    assert [type(event) for event in found.events] == [Delivery, Delivery]
    assert [one.verb for one in found.context] == ["group_add", "group_send"]
    assert [window.began_s for window in found.meanwhile] == [0.5]


def test_two_writes_and_two_deliveries_show_overtaking() -> None:
    """In the order of time."""
    story = Story().write(1, 1.0).write(2, 1.1, group="room").read(2, 2.0).read(1, 2.1)
    found = sliced("P3", noise(story).told())
    operations = [event for event in found.events if isinstance(event, Operation)]
    deliveries = [event for event in found.events if isinstance(event, Delivery)]
    assert [one.number for one in operations] == [1, 2]
    assert [one.message for one in deliveries] == ["p0.0/w/2", "p0.0/w/1"]
    # And what says that the channel is read by one process alone.
    assert list(found.events[1:]) == [*operations, *deliveries]


def test_one_write_shows_a_loss() -> None:
    """Nothing else is needed for nothing to have come."""
    found = sliced("P4", noise(Story().write(1, 1.0)).told())
    assert [event.number for event in found.events] == [1]


def test_the_leave_shows_that_a_member_had_left() -> None:
    """What came before the leave stands beside."""
    story = Story().join(0.0).leave(0.5).write(1, 1.0, group="room").read(1, 1.1)
    found = sliced("P2", noise(story).told())
    verbs = [getattr(event, "verb", "delivery") for event in found.events]
    assert verbs == ["group_discard", "group_send", "delivery"]
    assert [one.verb for one in found.context] == ["group_add"]
