"""Marks: what writers note of where they wrote, and what the next write must not overtake."""

from __future__ import annotations

from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import MAX_DOUBTS, MAX_TRAIL, Doubt, Mark, Trail
from tests.support.lanes import A_GROUP, A_INBOX, B_GROUP, B_INBOX, LIFE, WINDOW_S


def test_a_task_that_writes_to_one_lane_has_no_marks() -> None:
    """The common case costs nothing: a lane keeps order by itself."""
    for lane in (A_INBOX, A_GROUP):
        trail = Trail().after(lane, LIFE, 5, now=0.0)
        assert trail.marks(lane, 1.0, WINDOW_S) is None
    assert Trail().marks(A_GROUP, 1.0, WINDOW_S) is None


def test_a_write_elsewhere_is_marked() -> None:
    """The next write to another lane names the position of the one before."""
    trail = Trail().after(A_GROUP, LIFE, 5, now=0.0)
    assert trail.marks(A_INBOX, 1.0, WINDOW_S) == {"a": Mark(LIFE, None, 5)}
    assert trail.marks(B_GROUP, 1.0, WINDOW_S) == {"a": Mark(LIFE, None, 5)}
    trail = trail.after(A_INBOX, LIFE, 7, now=1.0)
    assert trail.marks(B_GROUP, 1.0, WINDOW_S) == {"a": Mark(LIFE, 7, 5)}
    assert trail.marks(A_GROUP, 1.0, WINDOW_S) == {"a": Mark(LIFE, 7, None)}


def test_inboxes_need_no_marks_of_inboxes() -> None:
    """One channel is always in one inbox, so entries of two inboxes are for different channels."""
    trail = Trail().after(A_INBOX, LIFE, 5, now=0.0)
    assert trail.marks(B_INBOX, 1.0, WINDOW_S) is None
    assert trail.marks(B_GROUP, 1.0, WINDOW_S) == {"a": Mark(LIFE, 5, None)}


def test_a_mark_ends_with_the_window() -> None:
    """What is older than a message lives can't be overtaken any more."""
    trail = Trail().after(A_GROUP, LIFE, 5, now=0.0)
    assert trail.marks(B_GROUP, WINDOW_S, WINDOW_S) is not None
    assert trail.marks(B_GROUP, WINDOW_S + 0.1, WINDOW_S) is None


def test_another_life_of_a_shard_forgets_positions_of_the_last() -> None:
    """What a dead incarnation held is lost; but what it had sent may still be on its way."""
    trail = Trail().after(A_INBOX, LIFE, 9, now=0.0).after(A_GROUP, "next", 1, now=1.0)
    assert trail.marks(B_GROUP, 1.0, WINDOW_S) == {"a": Mark("next", None, 1)}
    trail = Trail().after(A_GROUP, LIFE, 9, now=0.0).after(A_INBOX, "next", 1, now=1.0)
    assert trail.marks(B_INBOX, 1.0, WINDOW_S) == {"a": Mark("next", None, None)}
    assert trail.marks(B_INBOX, WINDOW_S + 0.1, WINDOW_S) is None


def test_a_trail_is_a_value() -> None:
    """Tasks that were started from one another do not see each other's later writes."""
    parent = Trail().after(A_GROUP, LIFE, 5, now=0.0)
    child = parent.after(B_GROUP, LIFE, 6, now=0.0)
    assert parent.marks(A_GROUP, 0.0, WINDOW_S) is None
    assert child.marks(A_GROUP, 0.0, WINDOW_S) == {"b": Mark(LIFE, None, 6)}


def test_a_trail_is_bounded() -> None:
    """A task that writes to very many shards forgets the oldest."""
    trail = Trail()
    for number in range(MAX_TRAIL + 10):
        trail = trail.after(Lane(str(number), GROUP), LIFE, 1, now=float(number))
    marks = trail.marks(Lane("other", GROUP), 0.0, 1e6)
    assert marks is not None
    assert list(marks) == [str(number) for number in range(10, MAX_TRAIL + 10)]


def test_a_write_of_unknown_outcome_is_marked_beside_the_latest_known_one() -> None:
    """It may not have happened: then the one before it is what must not be overtaken."""
    trail = Trail().after(A_GROUP, LIFE, 5, now=0.0).in_doubt(A_GROUP, LIFE, 77, now=1.0)
    trail = trail.in_doubt(A_GROUP, LIFE, 78, now=2.0)
    doubts = (Doubt(GROUP, 77), Doubt(GROUP, 78))
    assert trail.marks(B_GROUP, 2.0, WINDOW_S) == {"a": Mark(LIFE, None, 5, doubts)}
    assert trail.marks(A_GROUP, 2.0, WINDOW_S) is None
    assert (trail.uncertain, trail.uncertain_lanes()) == (True, [A_GROUP])


def test_a_later_write_to_the_same_lane_ends_the_doubt() -> None:
    """The lane keeps the order of the two by itself."""
    trail = Trail().in_doubt(A_GROUP, LIFE, 77, now=0.0).in_doubt(A_INBOX, LIFE, 78, now=0.0)
    trail = trail.after(A_GROUP, LIFE, 9, now=1.0)
    assert trail.marks(B_GROUP, 1.0, WINDOW_S) == {"a": Mark(LIFE, None, 9, (Doubt(INBOX, 78),))}
    assert trail.uncertain
    assert not trail.after(A_INBOX, LIFE, 3, now=1.0).uncertain


def test_an_inbox_has_no_doubts_of_inboxes() -> None:
    """For the same reason as it has no positions of theirs."""
    trail = Trail().in_doubt(A_INBOX, LIFE, 77, now=0.0)
    assert trail.marks(B_INBOX, 0.0, WINDOW_S) is None
    assert trail.marks(A_GROUP, 0.0, WINDOW_S) == {"a": Mark(LIFE, None, None, (Doubt(INBOX, 77),))}


def test_doubts_are_bounded_and_end_with_the_shard_s_life() -> None:
    """The oldest are forgotten first; what a dead incarnation held is lost."""
    trail = Trail()
    for number in range(MAX_DOUBTS + 3):
        trail = trail.in_doubt(A_GROUP, LIFE, number, now=0.0)
    marks = trail.marks(B_GROUP, 0.0, WINDOW_S)
    assert marks is not None
    assert [doubt.fingerprint for doubt in marks["a"].doubts] == list(range(3, MAX_DOUBTS + 3))
    assert trail.in_doubt(A_INBOX, "next", 1, now=0.0).uncertain_lanes() == [A_INBOX]
    assert not trail.after(A_INBOX, "next", 1, now=0.0).uncertain


def test_a_trail_tells_the_epoch_of_the_inboxes_that_it_marks() -> None:
    """That of publications does not matter: what a lane of those brings is never old."""
    trail = Trail().after(A_INBOX, LIFE, 5, now=0.0, epoch=3)
    trail = trail.after(B_GROUP, LIFE, 6, now=0.0, epoch=4)
    marks = trail.marks(A_GROUP, 1.0, WINDOW_S, 4)
    assert marks is not None
    assert trail.epoch_of(marks) == 3
    trail = Trail().after(B_GROUP, LIFE, 6, now=0.0, epoch=4)
    marks = trail.marks(A_GROUP, 1.0, WINDOW_S, 4)
    assert marks is not None
    assert trail.epoch_of(marks) == 0
    trail = trail.in_doubt(B_INBOX, LIFE, 1, now=0.0, epoch=5)
    marks = trail.marks(A_GROUP, 1.0, WINDOW_S, 5)
    assert marks is not None
    assert trail.epoch_of(marks) == 5
