"""Hand-written histories: each promise accepts some and rejects others."""

from __future__ import annotations

import pytest

from chaos.checkers import (
    CHECKERS,
    addressed,
    bounded,
    check,
    heal,
    honest,
    loss,
    once,
    order,
    substance,
    verdict_of,
)
from chaos.checkers.base import Finding, Verdict
from chaos.history import (
    CANCELLED,
    Audit,
    Counted,
    Failure,
    History,
    Life,
    Outcome,
    Stall,
    Window,
)
from tests.chaos.histories import OTHER, Story

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN


def sent_and_read() -> Story:
    return Story().write(1, 1.0).read(1, 1.1)


@pytest.mark.parametrize("name", CHECKERS)
def test_nothing_proves_nothing(name: str) -> None:
    """A history without events is neither valid nor invalid."""
    assert CHECKERS[name](Story().told()).verdict is UNKNOWN


# -- P1


def test_once_accepts_one_delivery_per_addressee() -> None:
    """Two members of a group each get the message."""
    story = Story().write(1, 1.0, group="room").read(1, 1.1).read(1, 1.1, channel=OTHER)
    assert once.check(story.told()).verdict is VALID


def test_once_rejects_a_second_delivery() -> None:
    """Also in another process, long afterwards."""
    found = once.check(sent_and_read().read(1, 50.0, process="p0.0").told())
    assert found.verdict is INVALID
    assert "p0.0/w/1 came to" in found.violations[0]


# -- P2


def test_addressed_accepts_what_was_sent_there() -> None:
    """Also when nobody knows whether it was executed."""
    story = sent_and_read().write(2, 2.0, outcome=Outcome.UNKNOWN).read(2, 2.1)
    assert addressed.check(story.told()).verdict is VALID


@pytest.mark.parametrize(
    "story",
    [
        Story().read(1, 1.0),
        Story().write(1, 1.0).read(1, 1.1, channel=OTHER),
        Story().write(1, 1.0, outcome=Outcome.NO).read(1, 1.1),
        Story().write(1, 2.0).read(1, 1.0),
        Story().write(1, 1.0, group="room").read(1, 1.1),
        Story().join(0.0, outcome=Outcome.NO).write(1, 1.0, group="room").read(1, 1.1),
        Story().join(0.0).leave(0.5).write(1, 1.0, group="room").read(1, 1.1),
    ],
    ids=["never-sent", "elsewhere", "failed", "too-early", "no-member", "refused-join", "left"],
)
def test_addressed_rejects(story: Story) -> None:
    """Whatever was not sent, not to this channel, or failed definitely."""
    assert addressed.check(story.told()).verdict is INVALID


@pytest.mark.parametrize(
    "story",
    [
        Story().join(0.0).leave(0.5, took_s=0.7),
        Story().join(0.0).leave(0.5, outcome=Outcome.UNKNOWN),
        Story().join(0.0).leave(0.5).join(0.6),
        Story().join(0.0).leave(0.005),
    ],
    ids=["leave-under-way", "leave-unknown", "back-again", "leave-overlaps-join"],
)
def test_addressed_accepts_while_the_membership_may_last(story: Story) -> None:
    """A leave counts only when it was acknowledged before the send, and came after the join."""
    history = story.write(1, 1.0, group="room").read(1, 1.3).told()
    assert addressed.check(history).verdict is VALID


# -- P3


def test_order_accepts_rising_numbers() -> None:
    """Gaps are losses, not disorder."""
    story = (
        Story().write(1, 1.0).write(2, 1.1, group="room").write(3, 1.2).read(1, 2.0).read(3, 2.1)
    )
    assert order.check(story.told()).verdict is VALID


def test_order_rejects_overtaking() -> None:
    """The later write came first, by way of another verb."""
    story = Story().write(1, 1.0).write(2, 1.1, group="room").read(2, 2.0).read(1, 2.1)
    assert order.check(story.told()).verdict is INVALID


def test_order_asks_nothing_of_cancelled_writes() -> None:
    """Their caller did not wait for them to happen; what it wrote besides has its order."""
    story = Story().write(1, 1.0).write(2, 1.1, outcome=Outcome.UNKNOWN, error=CANCELLED)
    story.write(3, 1.2).read(1, 2.0).read(3, 2.1).read(2, 2.2)
    assert order.check(story.told()).verdict is VALID
    story.deliveries[:2] = reversed(story.deliveries[:2])
    assert order.check(story.told()).verdict is INVALID


def test_order_asks_nothing_of_normal_channels() -> None:
    """Their readers compete."""
    story = Story().write(1, 1.0, to="queue").write(2, 1.1, to="queue")
    story.read(2, 2.0, channel="queue").read(1, 2.1, channel="queue")
    assert order.check(story.told()).verdict is UNKNOWN


# -- P4


def test_loss_accepts_what_arrived() -> None:
    """Everything acknowledged was delivered; what failed or is unknown is not demanded."""
    story = sent_and_read().write(2, 2.0, outcome=Outcome.NO).write(3, 3.0, outcome=Outcome.UNKNOWN)
    found = loss.check(story.told())
    assert (found.verdict, found.examined) == (VALID, 1)


def test_loss_rejects_an_unexplained_one() -> None:
    """No fault, no expiry, no full channel, and yet it did not come."""
    assert loss.check(Story().write(1, 1.0).told()).verdict is INVALID


def test_loss_rejects_a_member_that_missed_a_message() -> None:
    """One of the members had it, the other not."""
    story = Story().join(0.0).write(1, 1.0, group="room")
    assert loss.check(story.told()).verdict is INVALID
    assert loss.check(story.read(1, 1.1).told()).verdict is VALID


@pytest.mark.parametrize(
    "story",
    [Story().join(0.995), Story().join(0.0).leave(0.5), Story().join(0.0).leave(1.005)],
    ids=["joining-meanwhile", "had-left", "leaving-meanwhile"],
)
def test_loss_demands_only_from_lasting_memberships(story: Story) -> None:
    """A join must be acknowledged before, a leave be invoked after the send."""
    assert loss.check(story.write(1, 1.0, group="room").told()).examined == 0


def test_loss_accepts_what_a_fault_explains() -> None:
    """A fault on the way, at the time."""
    story = Story().write(1, 3.0).fault(2.0, 4.0, shards=("shard-0",), processes=("p1",))
    found = loss.check(story.told())
    assert found.verdict is VALID
    assert found.figures["lost: fault shard-kill"] == 1


@pytest.mark.parametrize(
    ("began_s", "ended_s", "shard", "process"),
    [(20.0, 30.0, "shard-0", "p1"), (2.0, 4.0, "shard-1", "p1"), (2.0, 4.0, "shard-0", "p7")],
    ids=["later", "on-another-shard", "of-another-process"],
)
def test_loss_rejects_a_fault_that_was_not_on_the_way(
    began_s: float, ended_s: float, shard: str, process: str
) -> None:
    """A fault elsewhere, or at another time, is no excuse."""
    story = Story().write(1, 3.0).fault(began_s, ended_s, shards=(shard,), processes=(process,))
    assert loss.check(story.told()).verdict is INVALID


def test_loss_accepts_each_counted_loss_once() -> None:
    """Two messages are gone, and one was counted as full."""
    counted = (Counted("p1.0", "full", 1, 1.5),)
    assert loss.check(Story().write(1, 1.0).told(counted=counted)).verdict is VALID
    two = Story().write(1, 1.0).write(2, 1.1)
    assert loss.check(two.told(counted=counted)).verdict is INVALID


def test_loss_rejects_an_expiry_that_cannot_be() -> None:
    """Nothing is as old as messages live, unless the shard's clock was set."""
    counted = (Counted("p1.0", "expired", 1, 5.0),)
    story = Story().write(1, 1.0)
    assert loss.check(story.told(counted=counted)).verdict is INVALID
    assert loss.check(story.told(counted=counted, expiry_s=2.0)).verdict is VALID
    story.windows.append(Window("shard-clock", 40.0, 41.0, effect=1))
    assert loss.check(story.told(counted=counted)).verdict is VALID


def test_loss_accepts_the_death_of_the_reader() -> None:
    """Nobody is left to receive it."""
    lives = (Life("p1.0", 0.0, 1.5, killed=True),)
    found = loss.check(Story().write(1, 1.0).told(lives=lives))
    assert (found.verdict, found.figures["lost: its process had ended"]) == (VALID, 1)


def test_loss_demands_nothing_of_who_had_gone() -> None:
    """Neither directly nor by a group, whether it was killed or has ended in good order."""
    for killed in (True, False):
        lives = (Life("p1.0", 0.0, 1.0, killed=killed),)
        story = Story().join(0.0).write(1, 2.0).write(2, 2.0, group="room")
        assert loss.check(story.told(lives=lives)).examined == 0


def test_loss_rejects_what_we_cannot_read_ourselves() -> None:
    """Bytes of our own that were counted as malformed, unless a later version wrote them."""
    counted = (Counted("p1.0", "malformed", 1, 1.5),)
    story = sent_and_read()
    assert loss.check(story.told(counted=counted)).verdict is INVALID
    story.windows.append(Window("upgrade", 0.0, 9.0, invariant="P4"))
    assert loss.check(story.told(counted=counted)).verdict is VALID


def test_loss_is_not_explained_by_what_changes_nothing() -> None:
    """ZooKeeper, a wrong clock and a planned change are no excuse."""
    story = Story().write(1, 3.0)
    story.windows.append(Window("zookeeper-lost", 2.0, 4.0, effect=1, invariant="P7"))
    assert loss.check(story.told()).verdict is INVALID


def test_loss_accepts_a_membership_that_ended_with_expired_messages() -> None:
    """The specification lets a channel be forgotten whose messages expire unread."""
    counted = (Counted("p1.0", "expired", 1, 0.9),)
    story = Story().join(0.0).write(1, 1.0, group="room")
    assert loss.check(story.told(counted=counted)).verdict is VALID
    assert loss.check(story.join(1.5).write(2, 2.0, group="room").told(counted=counted)).violations


def test_loss_lets_a_message_wait_in_its_queue() -> None:
    """A fault long after the send explains it, unless what was sent later had been read before."""
    story = Story().write(1, 1.0, to="queue").write(2, 2.0, to="queue").fault(20.0, 21.0)
    assert loss.check(story.read(2, 22.0, channel="queue").told()).verdict is VALID
    story.deliveries.clear()
    assert loss.check(story.read(2, 3.0, channel="queue").told()).verdict is INVALID


def test_loss_accepts_what_nobody_has_read_yet() -> None:
    """As many messages as were found in the queues of the shard at the end."""
    audits = (Audit("shard-0", 1, 0, waiting=1),)
    story = Story().write(1, 1.0, to="queue")
    assert loss.check(story.told(audits=audits)).verdict is VALID
    assert loss.check(story.write(2, 1.0, to="queue").told(audits=audits)).verdict is INVALID


def test_a_membership_given_by_others_may_end_with_the_shard() -> None:
    """It is stored on the shard until the process has taken it over; one's own is renewed."""
    for by, verdict in (("p0.0", VALID), ("p1.0", INVALID)):
        story = Story().join(1.0, by=by).fault(2.0, 3.0, shards=("shard-0",))
        story.write(1, 50.0, group="room")
        assert loss.check(story.told()).verdict is verdict


# -- P6


def writes_after(story: Story, healed_s: float) -> History:
    for number in range(1, 50):
        at_s = 4.0 + number / 10
        story.write(number, at_s)
        if at_s >= healed_s:
            story.read(number, at_s + 0.01)
    return story.told()


def test_heal_accepts_traffic_soon_after_the_fault() -> None:
    """The figure is the time from the cure to the first message."""
    found = heal.check(writes_after(Story().fault(2.0, 4.0, shards=("shard-0",)), 4.5))
    assert found.verdict is VALID
    assert found.figures["heal s: shard-kill"] == pytest.approx(0.51)


def test_heal_rejects_silence_after_the_fault() -> None:
    """Writes go on and nothing arrives."""
    found = heal.check(writes_after(Story().fault(2.0, 4.0, shards=("shard-0",)), 100.0))
    assert found.verdict is INVALID


def test_heal_rejects_a_receiver_that_gave_up() -> None:
    """receive() outlives every outage."""
    failures = (Failure("p1.0", "task read", "TimeoutError()", 3.0),)
    assert heal.check(sent_and_read().told(failures=failures)).verdict is INVALID


# -- P8


def test_bounded_accepts_calls_that_return() -> None:
    """Within some timeouts; a call of a killed process ends with it."""
    lives = (Life("p0.0", 0.0, 2.0, killed=True),)
    story = Story().write(1, 0.5, took_s=1.5).write(2, 1.0, took_s=None)
    assert bounded.check(story.told(lives=lives)).verdict is VALID


@pytest.mark.parametrize("took_s", [20.0, None])
def test_bounded_rejects_calls_that_hang(took_s: float | None) -> None:
    """For long, or for ever."""
    assert bounded.check(Story().write(1, 1.0, took_s=took_s).told()).verdict is INVALID


def test_bounded_does_not_count_the_time_of_a_stopped_process() -> None:
    """SIGSTOP stops its deadlines too."""
    story = Story().write(1, 1.0, took_s=19.5)
    for process in ("p0", "p0.0"):
        stalls = (Stall(process, 1.0, 20.0),)
        assert bounded.check(story.told(stalls=stalls)).verdict is VALID
    assert bounded.check(story.told(stalls=(Stall("p1", 1.0, 20.0),))).verdict is INVALID


def test_bounded_rejects_keys_that_live_for_ever() -> None:
    """Every key has a TTL."""
    audits = (Audit("shard-0", 3, 1),)
    assert bounded.check(sent_and_read().told(audits=audits)).verdict is INVALID


# -- P9


def test_honest_accepts_typed_outcomes() -> None:
    """Counted by kind."""
    found = honest.check(sent_and_read().write(2, 2.0, outcome=Outcome.UNKNOWN).told())
    assert (found.verdict, found.figures) == (VALID, {"ok": 1, "unknown": 1})


def test_honest_rejects_a_foreign_error() -> None:
    """Something other than the layer's errors was raised."""
    failures = (Failure("p0.0", "send by w", "ConnectionResetError()", 3.0),)
    assert honest.check(sent_and_read().told(failures=failures)).verdict is INVALID


# -- substance and verdicts


def test_substance_accepts_a_fault_that_struck_traffic() -> None:
    """It had an effect, and something was on its way."""
    story = sent_and_read().fault(0.5, 2.0, shards=("shard-0",))
    assert substance.check(story.told()).verdict is VALID


@pytest.mark.parametrize(
    "history",
    [
        Story().told(),
        Story(windows=[Window("latency", 0.5, 2.0)]).write(1, 1.0).read(1, 1.1).told(),
        sent_and_read().fault(50.0, 52.0).told(),
        sent_and_read().told(expects_unknown=True),
    ],
    ids=["nothing-delivered", "no-effect", "nothing-on-its-way", "no-doubt"],
)
def test_substance_doubts_a_run_that_proves_nothing(history: History) -> None:
    """Unknown, not invalid."""
    assert substance.check(history).verdict is UNKNOWN


def test_a_run_is_judged_by_the_invariants_of_its_scenario() -> None:
    """Invalid before unknown before valid."""
    findings = check(sent_and_read().told())
    assert [one.invariant for one in findings] == ["P1", "substance"]
    assert verdict_of(findings) is VALID
    worse = [*findings, Finding("P2", UNKNOWN, 0)]
    assert verdict_of(worse) is UNKNOWN
    assert verdict_of([*worse, Finding("P3", INVALID, 1)]) is INVALID


def test_a_storm_may_miss_now_and_then() -> None:
    """At least half of the kinds of faults must have struck."""
    missed = [Window(name, 0.5, 2.0) for name in ("latency", "sliced")]
    story = sent_and_read().fault(0.5, 2.0)
    story.windows.append(missed[0])
    assert substance.check(story.told()).verdict is VALID
    story.windows.append(missed[1])
    assert substance.check(story.told()).verdict is UNKNOWN
