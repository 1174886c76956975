"""Commands, replies and the line between "did not happen" and "may have happened"."""

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_layer.batching import Batch, Command

LATER = 100.0


class Waiter:
    """Remembers its result, as a future would."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone = gone
        self.results: list[Any] = []

    def done(self) -> bool:
        return self.gone or bool(self.results)

    def set_result(self, result: Any, /) -> None:
        assert not self.done()
        self.results.append(result)


def on_the_wire(*commands: Command) -> bytes:
    pack: Any = hiredis.pack_command
    return b"".join(pack(command) for command in commands)


def test_everything_queued_becomes_one_buffer_in_order() -> None:
    """What was queued before a write leaves with it, in the order of the calls, and only once."""
    batch = Batch()
    batch.add([("SET", "k", 1)], Waiter(), LATER)
    batch.add_unanswered(("SUBSCRIBE", b"c"))
    batch.add([("GET", "k"), ("PING",)], Waiter(), LATER)
    expected = on_the_wire(("SET", "k", 1), ("SUBSCRIBE", b"c"), ("GET", "k"), ("PING",))
    assert batch.take() == expected
    assert batch.take() == b""


def test_replies_find_their_waiters_in_order() -> None:
    """The n-th reply belongs to the n-th command, whichever write it left with."""
    batch = Batch()
    waiters = [Waiter() for _ in range(3)]
    batch.add([("A",)], waiters[0], LATER)
    batch.take()
    batch.add([("B",)], waiters[1], LATER)
    batch.add([("C",)], waiters[2], LATER)
    batch.take()
    for reply in (b"a", None, [b"c"]):
        batch.resolve(reply)
    assert [waiter.results for waiter in waiters] == [[b"a"], [None], [[b"c"]]]
    assert len(batch) == 0


def test_commands_that_belong_together_answer_together() -> None:
    """A waiter of several commands gets one list, once the last reply is there."""
    batch, several, next_one = Batch(), Waiter(), Waiter()
    batch.add([("A",), ("B",), ("C",)], several, LATER)
    batch.add([("D",)], next_one, LATER)
    batch.take()
    batch.resolve(1)
    batch.resolve(2)
    assert not several.done()
    batch.resolve(3)
    batch.resolve(4)
    assert (several.results, next_one.results) == ([[1, 2, 3]], [4])


def test_the_reply_of_a_waiter_that_is_gone_is_not_given_to_the_next() -> None:
    """A cancelled call keeps its place in the order of replies."""
    batch, gone, patient = Batch(), Waiter(gone=True), Waiter()
    batch.add([("A",), ("B",)], gone, LATER)
    batch.add([("C",)], patient, LATER)
    batch.take()
    for reply in (b"a", b"b", b"c"):
        batch.resolve(reply)
    assert patient.results == [b"c"]
    assert gone.results == []


def test_a_reply_that_nobody_waits_for_is_an_error() -> None:
    """A server that answers what was never asked is not understood any more."""
    batch = Batch()
    batch.add([("A",)], Waiter(), LATER)
    with pytest.raises(IndexError):
        batch.resolve(b"too early: it was never written")


def test_what_was_never_written_is_told_from_what_may_have_happened() -> None:
    """Commands handed to the socket are sent, also half answered ones; all others are unsent."""
    batch = Batch()
    answered, half, sent, unsent = (Waiter() for _ in range(4))
    batch.add([("A",)], answered, LATER)
    batch.add([("B",), ("C",)], half, LATER)
    batch.add([("D",)], sent, LATER)
    batch.take()
    batch.resolve(b"a")
    batch.resolve(b"b")
    batch.add([("E",)], unsent, LATER)
    assert batch.abandon() == ([unsent], [half, sent])
    assert len(batch) == 0
    assert batch.take() == b""


@pytest.mark.parametrize("written", [True, False], ids=["sent", "unsent"])
def test_the_oldest_command_tells_whether_an_answer_is_overdue(written: bool) -> None:
    """A command is overdue after its own deadline, also while it waits to be written."""
    batch = Batch()
    batch.add([("A",)], Waiter(), 10.0)
    batch.add([("B",)], Waiter(), 5.0)
    if written:
        batch.take()
    assert not batch.overdue(10.0)
    assert batch.overdue(10.1)


def test_nothing_is_overdue_where_nothing_waits() -> None:
    """An idle connection has no deadline."""
    batch = Batch()
    assert not batch.overdue(1e9)
    batch.add([("A",)], Waiter(), 1.0)
    batch.take()
    batch.resolve(b"")
    assert not batch.overdue(1e9)


@given(
    st.lists(
        st.one_of(
            st.integers(min_value=1, max_value=4),
            st.just("write"),
            st.just("reply"),
        )
    )
)
def test_every_waiter_is_answered_or_abandoned_exactly_once(steps: list[int | str]) -> None:
    """Whatever happens in which order, nobody is forgotten, answered twice or answered wrongly."""
    batch = Batch()
    waiters: list[tuple[Waiter, list[int]]] = []
    numbered = answered = written = 0
    for step in steps:
        if isinstance(step, int):
            expected = list(range(numbered, numbered + step))
            numbered += step
            waiters.append((Waiter(), expected))
            batch.add([("N", number) for number in expected], waiters[-1][0], LATER)
        elif step == "write":
            batch.take()
            written = numbered
        elif answered < written:
            batch.resolve(answered)
            answered += 1
    unsent, sent = batch.abandon()
    for waiter, expected in waiters:
        reply = expected if len(expected) > 1 else expected[0]
        if expected[-1] < answered:
            assert waiter.results == [reply]
        else:
            assert waiter.results == []
            assert (waiter in sent) == (expected[0] < written)
            assert (waiter in unsent) == (expected[0] >= written)
