"""The accounts of the demo's check, on hand-written histories."""

from dataclasses import dataclass, field

import pytest

from cluster_layer.demo.ledger import IN_FLIGHT_S, Answer, Ledger, Outage, ShardAccount, is_passed

# Shard b is away from 100 to 110, and has until 115 to heal.
OUTAGE = Outage("b", killed_at=100.0, back_at=110.0, heal_limit_s=5.0)


@dataclass
class History:
    """Ann and Bob are in a room on each of two shards; Ann talks, once per call of `say`."""

    ledger: Ledger = field(
        default_factory=lambda: Ledger(
            {"room-a": ["ann", "bob"], "room-b": ["ann", "bob"]},
            {"room-a": "a", "room-b": "b"},
        )
    )
    number: int = 0

    def say(
        self, room: str, at: float, *receivers: str, answer: Answer = Answer.SENT
    ) -> tuple[str, str, int]:
        self.number += 1
        key = (room, "ann", self.number)
        self.ledger.record_sent(key, at)
        for receiver in receivers:
            self.ledger.record_delivery(receiver, key)
        self.ledger.record_answer(key, answer)
        return key

    def account(self, shard: str) -> ShardAccount:
        return {account.shard: account for account in self.ledger.accounts([OUTAGE])}[shard]

    @property
    def passed(self) -> bool:
        return is_passed(self.ledger.accounts([OUTAGE]), [OUTAGE], self.ledger.strangers)


@pytest.fixture
def history() -> History:
    """Nothing wrong: each shard works before and after the outage."""
    history = History()
    for room in ("room-a", "room-b"):
        for at in (90.0, 111.0, 120.0):
            history.say(room, at, "ann", "bob")
    return history


def test_a_flawless_history_passes(history: History) -> None:
    """Everything arrived everywhere once."""
    assert history.passed
    account = history.account("b")
    assert (account.sent, account.due, account.delivered) == (3, 6, 6)


@pytest.mark.parametrize("at", [90.0, OUTAGE.killed_at - IN_FLIGHT_S - 0.1, 115.1])
def test_a_loss_outside_the_outage_fails(history: History, at: float) -> None:
    """A member who did not get a message sent before the outage, or after healing, fails it."""
    history.say("room-b", at, "ann")
    history.say("room-b", 121.0, "ann", "bob")
    assert history.account("b").lost_otherwise == 1
    assert not history.passed


@pytest.mark.parametrize("at", [99.5, 105.0, 110.5])
def test_a_loss_in_the_outage_is_counted_and_excused(history: History, at: float) -> None:
    """On the killed shard a message of that time may be lost."""
    history.say("room-b", at, "ann")
    assert history.account("b").lost_in_outage == 1
    assert history.passed


def test_another_shard_has_no_excuse(history: History) -> None:
    """An outage excuses nothing on the shards that were up."""
    history.say("room-a", 105.0, "ann")
    assert history.account("a").lost_otherwise == 1
    assert not history.passed


def test_a_second_copy_fails_always(history: History) -> None:
    """A duplicate is never excused, not even in the outage."""
    history.say("room-b", 105.0, "ann", "bob", "bob")
    assert history.account("b").duplicates == 1
    assert not history.passed


def test_order_is_checked(history: History) -> None:
    """An older message of the same sender after a newer one fails it."""
    first = history.say("room-a", 90.0, "ann")
    history.say("room-a", 91.0, "ann", "bob")
    history.ledger.record_delivery("bob", first)
    assert history.account("a").reordered == 1
    assert not history.passed


def test_a_certain_refusal_is_not_a_loss(history: History) -> None:
    """A message that was certainly not sent is due nowhere."""
    history.say("room-b", 105.0, answer=Answer.NOT_SENT)
    account = history.account("b")
    assert (account.refused, account.refused_otherwise, account.lost_in_outage) == (1, 0, 0)
    assert history.passed


def test_a_refusal_outside_the_outage_fails(history: History) -> None:
    """With its shard up, a message must be sent."""
    history.say("room-a", 105.0, answer=Answer.NOT_SENT)
    assert history.account("a").refused_otherwise == 1
    assert not history.passed


def test_a_delivery_after_a_certain_refusal_fails(history: History) -> None:
    """What was said not to be sent must not arrive."""
    history.say("room-b", 105.0, "bob", answer=Answer.NOT_SENT)
    assert history.account("b").after_refusal == 1
    assert not history.passed


def test_an_unknown_outcome_may_arrive_or_not(history: History) -> None:
    """Both are right, once."""
    history.say("room-b", 100.0, "ann", "bob", answer=Answer.UNKNOWN)
    history.say("room-b", 100.1, answer=Answer.UNKNOWN)
    assert history.account("b").lost_in_outage == 2
    assert history.passed


def test_what_nobody_sent_fails(history: History) -> None:
    """A delivery without a message, or to somebody who is not in the room, fails it."""
    history.ledger.record_delivery("ann", ("room-a", "ann", 999))
    assert history.ledger.strangers == 1
    assert not history.passed


def test_healing_is_measured_from_the_shards_return(history: History) -> None:
    """The first message since which all arrived everywhere ends the healing."""
    history.say("room-b", 111.5, "ann")
    history.say("room-b", 113.0, "ann", "bob")
    assert history.account("b").seconds_to_heal == pytest.approx(3.0)
    assert history.account("a").seconds_to_heal is None


def test_a_shard_that_never_heals_fails() -> None:
    """Without a complete delivery after its return there is nothing to show that it works."""
    history = History()
    history.say("room-a", 90.0, "ann", "bob")
    history.say("room-b", 90.0, "ann", "bob")
    assert not history.passed


def test_settled_means_answered_and_complete(history: History) -> None:
    """The check waits for answers always, and for deliveries that nothing excuses."""
    assert history.ledger.is_settled([OUTAGE])
    history.say("room-b", 105.0)
    assert history.ledger.is_settled([OUTAGE])
    late = history.say("room-b", 120.0, "ann")
    assert not history.ledger.is_settled([OUTAGE])
    history.ledger.record_delivery("bob", late)
    assert history.ledger.is_settled([OUTAGE])
    history.say("room-b", 105.0, answer=Answer.NONE)
    assert not history.ledger.is_settled([OUTAGE])
