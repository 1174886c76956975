"""Order between verbs: what writers note, and what a receiver makes of it.

`World` is the model: lanes as logs at their shards, tasks that write with their trails, and one
receiver. A strategy chooses what happens next; the rules are checked after every step.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import MAX_DOUBTS, MAX_TRAIL, Doubt, Mark, Trail
from cluster_layer.sequencer import Begun, Sequencer

A_INBOX, A_GROUP = Lane("a", INBOX), Lane("a", GROUP)
B_INBOX, B_GROUP = Lane("b", INBOX), Lane("b", GROUP)
LANES = (A_INBOX, A_GROUP, B_INBOX, B_GROUP)
LIFE = "life"
WINDOW_S = 60.0


# -- the writer's side


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


# -- the receiver's side, step by step


class Receiver:
    """A sequencer whose lanes are connected, what it delivered, and what it asked for."""

    def __init__(self, *lanes: Lane) -> None:
        self.delivered: list[Any] = []
        self.asked: list[Lane] = []
        self.overtaken: list[tuple[Lane, str, int]] = []
        self.sequencer = Sequencer(
            lambda _, item: self.delivered.append(item),
            self.asked.append,
            fingerprint,
            lambda *what: self.overtaken.append(what),
        )
        for lane in lanes or LANES:
            self.sequencer.open(lane, LIFE)

    def barrier(self, lane: Lane) -> None:
        """A barrier that begins and is through without anything in between."""
        self.sequencer.reached(lane, self.sequencer.begin(lane))

    def offer(self, lane: Lane, position: int, item: str, **marks: Mark) -> bool:
        return self.sequencer.offer(lane, position, marks or None, item, 0.0)


def fingerprint(item: str) -> int:
    return crc32(item.encode())


def after_group(position: int) -> Mark:
    return Mark(LIFE, None, position)


def after_inbox(position: int) -> Mark:
    return Mark(LIFE, position, None)


def after_doubt(kind: str, item: str) -> Mark:
    return Mark(LIFE, None, None, (Doubt(kind, fingerprint(item)),))


def test_an_unmarked_message_is_delivered_at_once() -> None:
    """Nothing is held, nothing is asked for."""
    receiver = Receiver()
    assert receiver.offer(A_GROUP, 1, "one")
    assert receiver.offer(A_INBOX, 1, "two")
    assert (receiver.delivered, receiver.asked) == (["one", "two"], [])


def test_a_marked_message_waits_for_what_was_written_before_it() -> None:
    """It is held, a barrier is asked for, and the older message's arrival sets it free."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "second", a=after_group(7))
    assert (receiver.delivered, receiver.asked) == ([], [A_GROUP])
    receiver.offer(A_GROUP, 6, "unrelated")
    assert receiver.delivered == ["unrelated"]
    receiver.offer(A_GROUP, 7, "first")
    assert receiver.delivered == ["unrelated", "first", "second"]


def test_what_has_arrived_already_is_not_waited_for() -> None:
    """The usual case of a marked message: the older one was faster."""
    receiver = Receiver()
    receiver.offer(A_GROUP, 7, "first")
    receiver.offer(B_GROUP, 3, "second", a=after_group(7))
    assert (receiver.delivered, receiver.asked) == (["first", "second"], [])


def test_a_barrier_sets_free_what_waits_for_a_message_that_is_not_for_us() -> None:
    """A write to a group in which this process has no member never arrives here."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "ours", a=after_group(7))
    receiver.barrier(A_GROUP)
    assert receiver.delivered == ["ours"]


def test_a_held_message_holds_those_behind_it_on_its_lane() -> None:
    """A lane stays in order, also for messages without marks."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "held", a=after_group(7))
    receiver.offer(B_GROUP, 4, "behind")
    assert receiver.delivered == []
    receiver.barrier(A_GROUP)
    assert receiver.delivered == ["held", "behind"]


def test_a_message_waits_for_one_that_is_itself_held() -> None:
    """To have arrived is not enough: what is needed must have been delivered."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "second", a=after_inbox(5))
    receiver.offer(A_GROUP, 8, "third", b=after_group(3))
    assert receiver.delivered == []
    receiver.offer(A_INBOX, 5, "first")
    assert receiver.delivered == ["first", "second", "third"]


def test_an_unknown_outcome_waits_for_a_barrier() -> None:
    """Whether the write happened, and where, only a read to the end tells."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "second", a=after_doubt(GROUP, "first"))
    assert (receiver.delivered, receiver.asked) == ([], [A_GROUP])
    receiver.offer(A_GROUP, 9, "first")
    assert receiver.delivered == ["first"]
    receiver.barrier(A_GROUP)
    assert receiver.delivered == ["first", "second"]


def test_a_barrier_says_nothing_of_what_came_after_it_began() -> None:
    """A write of unknown outcome may have reached its shard after an earlier barrier did."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "second", a=after_doubt(GROUP, "first"))
    begun = receiver.sequencer.begin(A_GROUP)
    receiver.offer(B_GROUP, 4, "fourth", a=after_doubt(GROUP, "third"))
    receiver.sequencer.reached(A_GROUP, begun)
    assert receiver.delivered == ["second"]
    receiver.offer(A_GROUP, 1, "third")
    receiver.barrier(A_GROUP)
    assert receiver.delivered == ["second", "third", "fourth"]


def test_held_messages_can_be_dropped() -> None:
    """A flush empties the process of what waits for its turn, too."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "held", a=after_group(7))
    receiver.offer(B_GROUP, 4, "behind")
    assert receiver.sequencer.drop_held() == ["held", "behind"]
    receiver.offer(A_GROUP, 7, "new")
    receiver.offer(B_GROUP, 5, "newer")
    assert receiver.delivered == ["new", "newer"]


@pytest.mark.parametrize("life", ["another", LIFE])
def test_nothing_waits_for_a_lane_that_is_not_there(life: str) -> None:
    """A lane that is cut can't be waited for."""
    receiver = Receiver(B_GROUP)
    receiver.offer(B_GROUP, 3, "alone", a=Mark(life, None, 7))
    assert (receiver.delivered, receiver.asked) == (["alone"], [])


@pytest.mark.parametrize("position", [7, None])
def test_a_writer_sees_the_end_of_a_life_before_its_readers(position: int | None) -> None:
    """What it wrote to the life that we still read may not be here yet: a barrier tells."""
    receiver = Receiver(A_GROUP, B_GROUP)
    receiver.offer(B_GROUP, 3, "second", a=Mark("next", None, position))
    assert (receiver.delivered, receiver.asked) == ([], [A_GROUP])
    begun = receiver.sequencer.begin(A_GROUP)
    receiver.offer(A_GROUP, 9, "first")
    receiver.sequencer.reached(A_GROUP, begun)
    assert receiver.delivered == ["first", "second"]
    receiver.offer(A_GROUP, 10, "third")
    assert receiver.delivered[-1] == "third"


def test_what_an_earlier_life_brings_goes_first() -> None:
    """Both wait for the same, and then for nothing more."""
    receiver = Receiver(A_GROUP, B_GROUP, B_INBOX)
    receiver.offer(B_GROUP, 3, "third", a=Mark("next", None, 1), b=Mark(LIFE, 5, None))
    begun = receiver.sequencer.begin(A_GROUP)
    receiver.offer(A_GROUP, 9, "second", b=Mark(LIFE, 5, None))
    receiver.sequencer.offer(B_INBOX, 5, None, "first", now=0.0)
    receiver.sequencer.reached(A_GROUP, begun)
    assert receiver.delivered == ["first", "second", "third"]


def test_the_end_of_an_earlier_life_makes_no_circles() -> None:
    """What it holds waits for what is behind the message that waited for the end."""
    receiver = Receiver(A_GROUP, B_GROUP)
    receiver.offer(B_GROUP, 3, "first", a=Mark("next", None, 1))
    begun = receiver.sequencer.begin(A_GROUP)
    receiver.offer(A_GROUP, 9, "third", b=after_group(4))
    receiver.offer(B_GROUP, 4, "second")
    receiver.sequencer.reached(A_GROUP, begun)
    assert receiver.delivered == ["first", "second", "third"]


def test_one_barrier_is_enough_for_two_lives() -> None:
    """Nothing more comes from the one that is over."""
    receiver = Receiver(A_GROUP, B_GROUP)
    receiver.offer(B_GROUP, 3, "first", a=Mark("next", None, 1))
    receiver.sequencer.reached(A_GROUP, receiver.sequencer.begin(A_GROUP))
    receiver.offer(B_GROUP, 4, "second", a=Mark("next", None, 2))
    assert receiver.delivered == ["first", "second"]
    assert receiver.asked == [A_GROUP]


def test_the_end_of_an_earlier_life_is_its_connections_end() -> None:
    """It brings nothing more; the same life, should it come again, is heard as ever."""
    receiver = Receiver(A_GROUP, B_GROUP)
    receiver.offer(B_GROUP, 3, "first", a=Mark("next", None, 1))
    receiver.sequencer.close(A_GROUP)
    assert receiver.delivered == ["first"]
    receiver.sequencer.open(A_GROUP, LIFE)
    receiver.offer(A_GROUP, 4, "second")
    assert receiver.delivered == ["first", "second"]


def test_a_life_that_is_over_here_as_well_is_not_waited_for() -> None:
    """The writer was slower than we."""
    receiver = Receiver(A_GROUP, B_GROUP)
    receiver.sequencer.close(A_GROUP)
    receiver.sequencer.open(A_GROUP, "next")
    receiver.offer(B_GROUP, 3, "alone", a=after_group(7))
    assert (receiver.delivered, receiver.asked) == (["alone"], [])


def test_cutting_a_lane_ends_the_wait_for_it() -> None:
    """What waits for a lane goes on without it."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "waits", a=after_group(7))
    receiver.sequencer.close(A_GROUP)
    assert receiver.delivered == ["waits"]
    assert receiver.sequencer.incarnation(A_GROUP) is None


def test_a_cut_does_not_hurry_what_its_lane_holds() -> None:
    """A message that waits for another lane goes on waiting when its own lane is cut."""
    receiver = Receiver()
    receiver.offer(A_INBOX, 1, "second", a=after_group(1))
    receiver.sequencer.close(A_INBOX)
    receiver.offer(A_GROUP, 1, "first")
    assert receiver.delivered == ["first", "second"]


def test_what_comes_too_late_is_refused() -> None:
    """An inbox outlives a cut: what it brings afterwards must not come behind later messages."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "went on", a=after_inbox(7))
    receiver.sequencer.close(A_INBOX)
    receiver.sequencer.open(A_INBOX, LIFE)
    assert not receiver.offer(A_INBOX, 7, "too late")
    assert receiver.offer(A_INBOX, 8, "new")
    assert receiver.delivered == ["went on", "new"]


def test_positions_of_an_earlier_life_count_for_nothing_in_the_next() -> None:
    """They begin anew there: a barrier does not bring a lane to where it was in another life."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 1, "held", a=after_group(9), b=after_inbox(5))
    receiver.sequencer.close(A_GROUP)
    receiver.sequencer.open(A_GROUP, "next")
    receiver.offer(A_INBOX, 1, "second", a=Mark("next", None, 2))
    receiver.offer(A_GROUP, 2, "first")
    receiver.barrier(A_GROUP)
    assert receiver.sequencer.received(A_GROUP) == 2
    receiver.offer(A_INBOX, 2, "fourth", a=Mark("next", None, 3))
    receiver.offer(A_GROUP, 3, "third")
    assert receiver.delivered == ["first", "second", "third", "fourth"]


def test_what_an_earlier_life_holds_comes_before_the_next() -> None:
    """One inbox needs no marks of itself, so messages of both lives keep the order of the lives."""
    receiver = Receiver()
    receiver.offer(A_INBOX, 5, "first", b=after_group(7))
    receiver.sequencer.close(A_INBOX)
    receiver.sequencer.open(A_INBOX, "next")
    receiver.offer(A_INBOX, 1, "second")
    receiver.offer(A_INBOX, 2, "third")
    assert receiver.delivered == []
    receiver.offer(B_GROUP, 7, "zeroth")
    assert receiver.delivered == ["zeroth", "first", "second", "third"]
    receiver.offer(A_INBOX, 3, "fourth")
    assert receiver.delivered[-1] == "fourth"


def test_a_barrier_that_began_in_an_earlier_life_tells_no_position() -> None:
    """The connection was lost meanwhile, and the next one went to another life."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 1, "first", a=after_group(9))
    begun = receiver.sequencer.begin(A_GROUP)
    receiver.sequencer.close(A_GROUP)
    receiver.sequencer.open(A_GROUP, "next")
    receiver.sequencer.open(A_INBOX, "next")
    receiver.sequencer.reached(A_GROUP, begun)
    assert receiver.sequencer.received(A_GROUP) == 0
    receiver.offer(B_GROUP, 2, "third", a=Mark("next", None, 1))
    receiver.offer(A_GROUP, 1, "second")
    assert receiver.delivered == ["first", "second", "third"]


def test_opening_a_lane_again_on_the_same_life_changes_nothing() -> None:
    """Two connections of one lane come up one after the other; what is held stays held."""
    receiver = Receiver()
    receiver.offer(A_GROUP, 4, "seen")
    receiver.offer(B_GROUP, 3, "held", a=after_group(7))
    receiver.sequencer.open(A_GROUP, LIFE)
    assert receiver.sequencer.received(A_GROUP) == 4
    assert receiver.delivered == ["seen"]


def test_an_unknown_outcome_waits_for_itself_alone() -> None:
    """Not for what else lies on its lane, which may wait for the message that has the doubt."""
    receiver = Receiver()
    receiver.offer(A_INBOX, 5, "first, of unknown outcome to its writer")
    receiver.offer(A_GROUP, 1, "second", a=after_doubt(INBOX, receiver.delivered[0]))
    receiver.offer(A_INBOX, 6, "third", a=after_group(1))
    receiver.barrier(A_INBOX)
    assert receiver.delivered[1:] == ["second", "third"]


def test_what_is_in_doubt_and_held_is_waited_for() -> None:
    """It has arrived, but waits for its own turn."""
    receiver = Receiver()
    receiver.offer(A_INBOX, 5, "second", b=after_group(7))
    receiver.offer(A_GROUP, 1, "third", a=after_doubt(INBOX, "second"))
    receiver.barrier(A_INBOX)
    assert receiver.delivered == []
    receiver.offer(B_GROUP, 7, "first")
    assert receiver.delivered == ["first", "second", "third"]


def test_two_outcomes_that_nobody_could_tell_keep_their_order() -> None:
    """The second and the third wait for what their writer knew as little of as of each other."""
    receiver = Receiver()
    receiver.offer(A_GROUP, 1, "first")
    receiver.offer(A_GROUP, 2, "third", b=after_doubt(INBOX, "second"))
    receiver.offer(B_INBOX, 1, "second", a=after_doubt(GROUP, "first"))
    receiver.barrier(A_GROUP)
    receiver.barrier(B_INBOX)
    assert receiver.delivered == ["first", "second", "third"]


def test_a_cut_lane_is_searched_for_a_doubt() -> None:
    """What it holds is delivered in its turn; what it does not hold can't come any more."""
    receiver = Receiver()
    receiver.offer(A_INBOX, 5, "second", b=after_group(7))
    receiver.offer(A_GROUP, 1, "third", a=after_doubt(INBOX, "second"))
    receiver.sequencer.close(A_INBOX)
    receiver.offer(A_GROUP, 2, "fourth", a=after_doubt(INBOX, "second"))
    assert (receiver.delivered, receiver.overtaken) == ([], [])
    receiver.offer(B_GROUP, 7, "first")
    assert receiver.delivered == ["first", "second", "third", "fourth"]


def test_a_cut_overtakes_an_unknown_outcome() -> None:
    """Who waited for it goes on; it is too late then, if it was written."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "went on", a=after_doubt(INBOX, "lost"))
    assert receiver.overtaken == []
    receiver.sequencer.close(A_INBOX)
    what = (A_INBOX, LIFE, fingerprint("lost"))
    assert (receiver.delivered, receiver.overtaken) == (["went on"], [what])
    receiver.offer(B_GROUP, 4, "too", a=after_doubt(INBOX, "lost"))
    assert receiver.overtaken == [what] * 2


def test_a_cut_overtakes_a_known_position_alone() -> None:
    """What was written behind it may still come: the lane as a whole is not too late."""
    receiver = Receiver()
    receiver.offer(B_GROUP, 3, "went on", a=after_inbox(7))
    receiver.sequencer.close(A_INBOX)
    assert (receiver.delivered, receiver.overtaken) == (["went on"], [])


def test_positions_are_remembered_per_lane_and_life() -> None:
    """Whoever goes on after us needs to know how far each lane was read."""
    receiver = Receiver(A_GROUP, B_INBOX)
    receiver.offer(A_GROUP, 4, "x")
    receiver.offer(A_GROUP, 5, "y", b=after_inbox(9))
    receiver.barrier(B_INBOX)
    assert receiver.sequencer.positions() == {(A_GROUP, LIFE): 5, (B_INBOX, LIFE): 9}


def test_marks_of_a_later_epoch_wait_until_the_lanes_are_known() -> None:
    """An inbox that has moved: its new home is none of ours before the topology says so."""
    receiver = Receiver(B_GROUP)
    sequencer = receiver.sequencer
    sequencer.learn(1)
    sequencer.offer(B_GROUP, 3, {"a": after_inbox(7)}, "second", 0.0, epoch=2)
    sequencer.offer(B_GROUP, 4, None, "third", 0.0)
    assert receiver.delivered == []
    sequencer.expect(A_INBOX)
    sequencer.learn(2)
    assert receiver.delivered == []
    sequencer.open(A_INBOX, LIFE)
    receiver.offer(A_INBOX, 7, "first")
    assert receiver.delivered == ["first", "second", "third"]


def test_marks_of_a_later_epoch_that_name_lanes_of_others_wait_for_that_epoch_alone() -> None:
    """Once it is known that the inbox is not ours, there is nothing to wait for."""
    receiver = Receiver(B_GROUP)
    receiver.sequencer.offer(B_GROUP, 3, {"a": after_inbox(7)}, "one", 0.0, epoch=2)
    assert receiver.delivered == []
    receiver.sequencer.learn(3)
    assert receiver.delivered == ["one"]
    receiver.sequencer.offer(B_GROUP, 4, {"a": after_inbox(8)}, "two", 0.0, epoch=3)
    assert receiver.delivered == ["one", "two"]


def test_an_epoch_that_cannot_be_learnt_is_waited_for_once() -> None:
    """Its shard may hold a topology that is of no use here."""
    receiver = Receiver(B_GROUP)
    receiver.sequencer.offer(B_GROUP, 3, {"a": after_inbox(7)}, "one", 10.0, epoch=2)
    assert receiver.sequencer.expire(15.0) == 1
    receiver.sequencer.offer(B_GROUP, 4, {"a": after_inbox(8)}, "two", 20.0, epoch=2)
    assert receiver.delivered == ["one", "two"]


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


def test_holding_is_bounded_by_time() -> None:
    """What waited for too long is delivered all the same, and counted."""
    receiver = Receiver()
    receiver.sequencer.offer(B_GROUP, 3, {"a": after_group(7)}, "old", 10.0)
    receiver.sequencer.offer(B_GROUP, 4, None, "young", 20.0)
    assert receiver.sequencer.expire(10.0) == 0
    assert receiver.sequencer.expire(15.0) == 1
    assert receiver.delivered == ["old", "young"]


# -- the model


class Written(NamedTuple):
    """A message in a lane's log; `task` None: it is for another process, we only see its place."""

    position: int
    task: int | None
    number: int
    marks: dict[str, Mark] | None


@dataclass
class Line:
    """A lane: its log at the shard, and how far the receiver has got."""

    life: str = LIFE
    log: list[Written] = field(default_factory=list)
    position: int = 0
    arrived: int = 0
    open: bool = True
    # A barrier on its way: what `begin` gave, and the log's length when the shard saw it.
    barrier: tuple[Begun, int] | None = None
    begun: Begun | None = None
    again: bool = False


class World:
    """Several tasks write to lanes of two shards; one process receives."""

    def __init__(self) -> None:
        self.lines = {lane: Line() for lane in LANES}
        self.trails: defaultdict[int, Trail] = defaultdict(Trail)
        self.numbers: defaultdict[int, int] = defaultdict(int)
        # By task and by the shard of the inbox: each inbox is that of one channel, and both
        # channels are members of every group.
        self.delivered: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self.overtaken: set[tuple[Lane, str, int]] = set()
        # Tasks that wait for a shard to tell where its last write went.
        self.settling: dict[int, Lane] = {}
        self.sequencer = Sequencer(self._deliver, self._ask, _print_of, self._overtake)
        for lane in LANES:
            self.sequencer.open(lane, LIFE)

    def write(self, task: int, lane: Lane, *, ours: bool = True, told: str = "position") -> None:
        """What the writer is told: the position; nothing before it asks ("later"); or nothing."""
        self._settle(task)
        line = self.lines[lane]
        trail = self.trails[task]
        line.position += 1
        number = self.numbers[task] = self.numbers[task] + 1
        marks = trail.marks(lane, 0.0, WINDOW_S)
        line.log.append(Written(line.position, task if ours else None, number, marks))
        if told == "position":
            self.trails[task] = trail.after(lane, line.life, line.position, 0.0)
            return
        self.trails[task] = trail.in_doubt(lane, line.life, _print_of((task, number)), 0.0)
        if told == "later":
            self.settling[task] = lane

    def fail(self, task: int, lane: Lane) -> None:
        """The writer is told nothing, and nothing was written."""
        number = self.numbers[task] = self.numbers[task] + 1
        trail, life = self.trails[task], self.lines[lane].life
        self.trails[task] = trail.in_doubt(lane, life, _print_of((task, number)), 0.0)

    def arrive(self, lane: Lane) -> None:
        """The next message of the lane reaches the process."""
        line = self.lines[lane]
        if not line.open or line.arrived == len(line.log):
            return
        written = line.log[line.arrived]
        line.arrived += 1
        if written.task is None:
            return
        item = (written.task, written.number)
        if (lane, line.life, _print_of(item)) in self.overtaken:
            return
        self.sequencer.offer(lane, written.position, written.marks, item, 0.0)

    def see_barrier(self, lane: Lane) -> None:
        """The shard sees a barrier that was asked for: its answer comes behind all it has now."""
        line = self.lines[lane]
        if line.again and line.barrier is None and line.open:
            line.again = False
            # One that was cut is made again, for those who asked for it.
            line.begun = line.begun or self.sequencer.begin(lane)
            line.barrier = (line.begun, len(line.log))

    def answer_barrier(self, lane: Lane) -> None:
        line = self.lines[lane]
        if line.barrier is None:
            return
        begun, end = line.barrier
        while line.arrived < end:
            self.arrive(lane)
        line.barrier = line.begun = None
        self.sequencer.reached(lane, begun)

    def cut(self, lane: Lane) -> None:
        line = self.lines[lane]
        line.open, line.barrier, line.again = False, None, line.barrier is not None
        self.sequencer.close(lane)

    def restart(self, lane: Lane) -> None:
        """The lane's shard begins anew, blank; what its writers have not settled is settled."""
        for task, unsettled in list(self.settling.items()):
            if unsettled.shard == lane.shard:
                self._settle(task)
        for other in LANES:
            if other.shard == lane.shard:
                self.cut(other)
                old = self.lines[other]
                life = f"{old.life}+"
                self.lines[other] = Line(life, open=False, again=old.again, begun=old.begun)

    def heal(self, lane: Lane) -> None:
        """An inbox goes on where it was; a subscription has missed what came meanwhile."""
        line = self.lines[lane]
        if line.open:
            return
        line.open = True
        if lane.kind == GROUP:
            line.arrived = len(line.log)
        self.sequencer.open(lane, line.life)

    def settle(self) -> None:
        """Everything arrives that is on its way, and every barrier is answered."""
        for lane in LANES:
            self.heal(lane)
        for _ in range(20):
            for lane in LANES:
                self.see_barrier(lane)
                self.answer_barrier(lane)
                while self.lines[lane].arrived < len(self.lines[lane].log):
                    self.arrive(lane)

    def missing(self) -> list[tuple[int, str, int]]:
        """(task, channel, number) of what was written to us and not delivered."""
        return [
            (written.task, channel, written.number)
            for lane, line in self.lines.items()
            for written in line.log
            if written.task is not None
            for channel in _channels(lane)
            if written.number not in self.delivered[written.task, channel]
        ]

    def _deliver(self, lane: Lane, item: tuple[int, int]) -> None:
        task, number = item
        for channel in _channels(lane):
            before = self.delivered[task, channel]
            assert not before or before[-1] < number, f"task {task}: {number} after {before}"
            before.append(number)

    def _settle(self, task: int) -> None:
        """The shard tells its counter to a task: by now others may have written, too."""
        lane = self.settling.pop(task, None)
        if lane is not None:
            line = self.lines[lane]
            self.trails[task] = self.trails[task].after(lane, line.life, line.position, 0.0)

    def _ask(self, lane: Lane) -> None:
        self.lines[lane].again = True

    def _overtake(self, lane: Lane, incarnation: str, fingerprint: int) -> None:
        self.overtaken.add((lane, incarnation, fingerprint))


def _print_of(item: tuple[int, int]) -> int:
    return item[0] * 1000 + item[1]


def _channels(lane: Lane) -> tuple[str, ...]:
    return ("a", "b") if lane.kind == GROUP else (lane.shard,)


_lanes = st.sampled_from(LANES)
_tasks = st.integers(min_value=0, max_value=2)
_writes = st.tuples(st.just("write"), _tasks, _lanes)
_moves = st.tuples(st.sampled_from(["arrive", "arrive", "see_barrier", "answer_barrier"]), _lanes)
_foreign = st.tuples(st.just("foreign"), _tasks, _lanes)
_unknown = st.tuples(st.sampled_from(["unknown", "cancelled", "fail"]), _tasks, _lanes)
_cuts = st.tuples(st.sampled_from(["cut", "cut", "heal", "heal", "restart"]), _lanes)


def play(steps: list[tuple[Any, ...]]) -> World:
    world = World()
    for verb, *args in steps:
        if verb == "foreign":
            world.write(*args, ours=False)
        elif verb == "unknown":
            world.write(*args, told="later")
        elif verb == "cancelled":
            world.write(*args, told="nothing")
        else:
            getattr(world, verb)(*args)
    return world


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign), max_size=60))
def test_without_faults_everything_is_delivered_once_and_in_order(
    steps: list[tuple[Any, ...]],
) -> None:
    """Whatever the speed of lanes and barriers: each task's messages, all, once, in its order."""
    world = play(steps)
    world.settle()
    assert not world.missing()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign, _unknown, _cuts), max_size=60)
)
def test_cuts_lose_messages_but_never_their_order(steps: list[tuple[Any, ...]]) -> None:
    """Lanes that are cut and come back, shards that begin anew: nothing twice or out of order."""
    world = play(steps)
    world.settle()


@pytest.mark.parametrize("verb", ["unknown", "cancelled"])
def test_an_unknown_outcome_does_not_stall_the_task_s_next_messages(verb: str) -> None:
    """Unknown on b, then a, then b again: all of them are delivered without any time-out."""
    world = play([(verb, 0, B_GROUP), ("write", 0, A_INBOX), ("write", 0, B_GROUP)])
    world.settle()
    assert not world.missing()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_writes, _writes, _moves, _moves, _foreign, _unknown), max_size=60))
def test_writes_of_unknown_outcome_keep_their_place(steps: list[tuple[Any, ...]]) -> None:
    """A lost reply at the writer disturbs neither order nor completeness at the receiver."""
    world = play(steps)
    world.settle()
    assert not world.missing()
