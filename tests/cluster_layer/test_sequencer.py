"""The sequencer: what is held back, for what, and until when."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import Doubt, Mark
from cluster_layer.sequencer import Sequencer
from tests.support.lanes import A_GROUP, A_INBOX, B_GROUP, B_INBOX, LANES, LIFE


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


def test_holding_is_bounded_by_time() -> None:
    """What waited for too long is delivered all the same, and counted."""
    receiver = Receiver()
    receiver.sequencer.offer(B_GROUP, 3, {"a": after_group(7)}, "old", 10.0)
    receiver.sequencer.offer(B_GROUP, 4, None, "young", 20.0)
    assert receiver.sequencer.expire(10.0) == 0
    assert receiver.sequencer.expire(15.0) == 1
    assert receiver.delivered == ["old", "young"]


class TestWidened:
    """A lane that brings one more inbox, which may be behind the others."""

    def test_how_far_it_has_come_says_nothing_of_that_inbox(self) -> None:
        """What was written there waits to be read, although later positions have arrived."""
        receiver = Receiver()
        receiver.offer(A_INBOX, 5, "other")
        receiver.sequencer.widen(A_INBOX)
        receiver.offer(B_GROUP, 1, "second", a=after_inbox(4))
        assert (receiver.delivered, receiver.asked) == (["other"], [A_INBOX])
        receiver.offer(A_INBOX, 4, "first")
        receiver.barrier(A_INBOX)
        assert receiver.delivered == ["other", "first", "second"]

    def test_who_waits_for_what_is_held_there_asks_for_a_barrier_all_the_same(self) -> None:
        """It needed none, as long as all that could be meant was there."""
        receiver = Receiver()
        receiver.offer(A_INBOX, 5, "first", b=after_group(1))
        receiver.offer(B_INBOX, 1, "second", a=after_inbox(5))
        assert receiver.asked == [B_GROUP]
        receiver.sequencer.widen(B_INBOX)
        receiver.sequencer.widen(A_INBOX)
        assert receiver.asked == [B_GROUP, A_INBOX]

    def test_a_barrier_that_began_before_knows_nothing_of_it(self) -> None:
        """It may have asked for the other inboxes alone."""
        receiver = Receiver()
        receiver.offer(A_INBOX, 5, "other")
        receiver.sequencer.widen(A_INBOX)
        begun = receiver.sequencer.begin(A_INBOX)
        receiver.sequencer.widen(A_INBOX)
        receiver.sequencer.reached(A_INBOX, begun)
        receiver.offer(B_GROUP, 1, "second", a=after_inbox(4))
        assert receiver.delivered == ["other"]
        receiver.barrier(A_INBOX)
        assert receiver.delivered == ["other", "second"]

    def test_what_it_brings_takes_its_place_among_what_is_held(self) -> None:
        """An older message that is held behind a younger one would not be seen to be there."""
        receiver = Receiver()
        receiver.sequencer.widen(A_INBOX)
        receiver.offer(A_INBOX, 5, "other", b=after_group(9))
        receiver.offer(A_INBOX, 4, "first", b=after_group(8))
        receiver.barrier(A_INBOX)
        receiver.offer(A_GROUP, 1, "second", b=after_inbox(4))
        receiver.offer(B_INBOX, 1, "third", a=after_inbox(4))
        assert receiver.delivered == []
        receiver.offer(B_GROUP, 8, "before")
        assert receiver.delivered == ["before", "first", "third"]

    def test_what_a_cut_leaves_behind_comes_too_late(self) -> None:
        """Nobody waits for a lane that is cut; what of that inbox comes afterwards is dropped."""
        receiver = Receiver()
        receiver.offer(A_INBOX, 5, "other")
        receiver.sequencer.widen(A_INBOX)
        receiver.offer(B_GROUP, 1, "second", a=after_inbox(4))
        receiver.sequencer.close(A_INBOX)
        assert receiver.delivered == ["other", "second"]
        receiver.sequencer.open(A_INBOX, LIFE)
        assert not receiver.offer(A_INBOX, 4, "first")
