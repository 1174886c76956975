"""Mailboxes: bounded, in order, woken, and every loss counted."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_layer import buffers
from cluster_layer.buffers import MAX_STALE, Audience, Loss, Mailboxes, Parcel, SharedParcel
from cluster_layer.envelope import encode_body
from cluster_layer.errors import DecryptFailed

NOW = 1000.0


class Receiver:
    """A receiver that sleeps; `woken` once somebody woke it."""

    woken = False

    def wake(self) -> None:
        assert not self.woken
        self.woken = True


class Process:
    """The mailboxes of one process, with what they have lost."""

    def __init__(self, capacity: int = 3) -> None:
        self.lost: Counter[Loss] = Counter()
        self.boxes = Mailboxes(lambda _: capacity, self._lose)

    def _lose(self, reason: Loss, count: int) -> None:
        self.lost[reason] += count

    def put(self, name: str, *bodies: str, deadline: float = NOW + 60) -> list[bool]:
        box = self.boxes.open(name)
        return [self.boxes.put(box, parcel(body, deadline)) for body in bodies]

    def take(self, name: str, now: float = NOW) -> str | None:
        found = self.boxes.take(self.boxes.open(name), now)
        return None if found is None else found.body.decode()

    def take_shared(self, inbox: str, now: float = NOW) -> tuple[str, str] | None:
        found = self.boxes.take_shared(inbox, now)
        return None if found is None else (found[0].name, found[1].body.decode())

    def put_all(self, audience: Audience, body: str) -> None:
        self.boxes.put_all(audience, parcel(body))

    def audience(self, *names: str) -> Audience:
        """Members of one group."""
        boxes = tuple(self.boxes.open(name) for name in names)
        for box in boxes:
            box.groups.add("g")
        return Audience(boxes)

    def waiting_at(self, name: str) -> Receiver:
        receiver = Receiver()
        at = self.boxes.shared(name) if name.endswith("!") else self.boxes.open(name)
        at.waiters.append(receiver)
        return receiver


def parcel(body: str, deadline: float = NOW + 60) -> Parcel:
    return Parcel(body.encode(), b"", deadline)


@pytest.fixture
def process() -> Process:
    return Process()


def test_messages_leave_in_the_order_of_their_arrival(process: Process) -> None:
    """A mailbox is a queue of its own."""
    process.put("p.1!a", "one", "two")
    process.put("p.1!b", "other")
    assert [process.take("p.1!a") for _ in range(3)] == ["one", "two", None]
    assert process.take("p.1!b") == "other"


def test_a_full_mailbox_drops_the_new_message_and_counts_it(process: Process) -> None:
    """Capacity bounds each mailbox by itself; what waits is never thrown out for what comes."""
    process.put("p.1!a", "1", "2", "3", "4", "5")
    process.put("p.1!b", "1")
    assert [process.take("p.1!a") for _ in range(4)] == ["1", "2", "3", None]
    assert process.take("p.1!b") == "1"
    assert process.lost == {Loss.FULL: 2}


def test_all_mailboxes_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many channels there are, a process holds no more than a fixed number of messages."""
    monkeypatch.setattr(buffers, "MAX_MESSAGES", 4)
    process = Process()
    for name in ("p.1!a", "p.1!b", "p.1!c"):
        process.put(name, "1", "2")
    assert process.boxes.messages == 4
    assert process.lost == {Loss.FULL: 2}
    assert process.take("p.1!a") == "1"
    process.put("p.1!c", "3")
    assert process.take("p.1!c") == "3"


def test_an_expired_message_is_skipped_and_counted(process: Process) -> None:
    """A message may be taken before its deadline and never at it."""
    process.put("p.1!a", "old", deadline=NOW)
    process.put("p.1!a", "new", deadline=NOW + 1)
    assert process.take("p.1!a", NOW) == "new"
    assert process.lost == {Loss.EXPIRED: 1}
    assert process.boxes.messages == 0


def test_what_expires_unread_is_dropped_and_its_mailboxes_are_named(process: Process) -> None:
    """The sweep drops expired messages only, and says in which mailboxes there were some."""
    process.put("p.1!a", "old", "old", deadline=NOW)
    process.put("p.1!a", "new", deadline=NOW + 1)
    process.put("p.1!b", "new", deadline=NOW + 1)
    assert [box.name for box in process.boxes.expire(NOW)] == ["p.1!a"]
    assert process.lost == {Loss.EXPIRED: 2}
    assert process.boxes.messages == 2
    assert (process.take("p.1!a"), process.take("p.1!b")) == ("new", "new")


def test_a_message_put_back_comes_first_again(process: Process) -> None:
    """A receiver that was cancelled with a message in its hands returns it to the head."""
    process.put("p.1!a", "one", "two")
    box = process.boxes.open("p.1!a")
    taken = process.boxes.take(box, NOW)
    assert taken is not None
    process.boxes.put_back(box, taken)
    assert process.boxes.messages == 2
    assert [process.take("p.1!a") for _ in range(2)] == ["one", "two"]
    assert not process.lost


@pytest.mark.parametrize("sleeper", ["p.1!a", "p.1!"])
def test_putting_back_wakes_whoever_waits(process: Process, sleeper: str) -> None:
    """Another receiver, of the full name or of the part up to ``!``, may have come since."""
    process.put("p.1!a", "one")
    assert process.take_shared("p.1!") == ("p.1!a", "one")
    receiver = process.waiting_at(sleeper)
    process.boxes.put_back(process.boxes.open("p.1!a"), parcel("one"))
    assert receiver.woken
    assert process.take_shared("p.1!") == ("p.1!a", "one")


def test_a_message_wakes_one_receiver(process: Process) -> None:
    """Receivers are woken in the order in which they came, one for each message."""
    first, second = process.waiting_at("q"), process.waiting_at("q")
    assert process.put("q", "one") == [True]
    assert (first.woken, second.woken) == (True, False)
    assert process.put("q", "two") == [True]
    assert second.woken


def test_putting_tells_whether_somebody_takes_the_message(process: Process) -> None:
    """Without a receiver that waits, the message stays until somebody asks."""
    assert process.put("q", "one") == [False]
    process.waiting_at("q")
    assert process.put("q", "two", "three") == [True, False]
    assert process.boxes.messages == 3


def test_a_shared_receiver_gets_the_messages_of_all_channels_in_order(process: Process) -> None:
    """Receivers of the part up to ``!`` see the order of arrival across the full names."""
    assert process.take_shared("p.1!") is None
    process.put("p.1!a", "1")
    process.put("p.1!b", "2")
    process.put("p.2!a", "of another name")
    process.put("p.1!a", "3")
    taken = [process.take_shared("p.1!") for _ in range(4)]
    assert taken == [("p.1!a", "1"), ("p.1!b", "2"), ("p.1!a", "3"), None]


def test_a_shared_receiver_finds_what_came_before_it(process: Process) -> None:
    """Messages that arrived before anybody received by the part up to ``!`` are not overlooked."""
    process.put("p.1!a", "1", "2")
    process.put("p.1!b", "3")
    taken = [process.take_shared("p.1!") for _ in range(4)]
    assert sorted(filter(None, taken)) == [("p.1!a", "1"), ("p.1!a", "2"), ("p.1!b", "3")]
    assert process.boxes.messages == 0


def test_a_shared_receiver_is_woken_where_no_receiver_of_the_name_waits(process: Process) -> None:
    """One message wakes one receiver: that of its own name first, else a shared one."""
    assert process.take_shared("p.1!") is None
    shared, own = process.waiting_at("p.1!"), process.waiting_at("p.1!a")
    process.put("p.1!a", "for its own")
    assert (own.woken, shared.woken) == (True, False)
    process.put("p.1!b", "for anybody")
    assert shared.woken


def test_each_message_is_taken_once_by_either_kind_of_receiver(process: Process) -> None:
    """What was taken by the full name is not there for a shared receiver, and the other way."""
    assert process.take_shared("p.1!") is None
    process.put("p.1!a", "1", "2")
    assert process.take("p.1!a") == "1"
    assert process.take_shared("p.1!") == ("p.1!a", "2")
    assert process.take_shared("p.1!") is None
    assert process.take("p.1!a") is None


def test_everything_of_a_mailbox_can_be_taken_away(process: Process) -> None:
    """Popped messages that nobody is left for go back to their shard, expired or not."""
    process.put("q", "old", deadline=NOW - 1)
    process.put("q", "new")
    parcels = process.boxes.take_all(process.boxes.open("q"))
    assert [one.body for one in parcels] == [b"old", b"new"]
    assert process.boxes.messages == 0
    assert process.take("q") is None


def test_clearing_drops_messages_and_keeps_receivers(process: Process) -> None:
    """After a flush nothing old is left, and those who wait get what comes next."""
    assert process.take_shared("p.1!") is None
    process.put("p.1!a", "old")
    receiver = process.waiting_at("p.1!")
    process.boxes.clear()
    assert process.boxes.messages == 0
    assert process.take_shared("p.1!") is None
    process.put("p.1!a", "new")
    assert receiver.woken
    assert process.take_shared("p.1!") == ("p.1!a", "new")


def test_a_deserted_mailbox_wakes_nobody_of_before(process: Process) -> None:
    """Receivers on a loop that has ended are forgotten; their mailboxes count as abandoned."""
    by_name, by_part = process.waiting_at("p.1!a"), process.waiting_at("p.1!")
    process.boxes.desert(NOW)
    process.put("p.1!a", "one")
    assert not by_name.woken
    assert not by_part.woken
    assert process.boxes.open("p.1!a").abandoned_at == NOW


def test_only_an_idle_mailbox_is_forgotten_without_loss(process: Process) -> None:
    """Messages, receivers and memberships each keep a mailbox from being idle."""
    idle, grouped, filled, awaited = (process.boxes.open(f"p.1!{letter}") for letter in "abcd")
    grouped.groups.add("g")
    process.put(filled.name, "one")
    process.waiting_at(awaited.name)
    assert [box.name for box in process.boxes if box.idle] == [idle.name]


def test_the_count_of_messages_follows_every_way_in_and_out(process: Process) -> None:
    """The bound over all mailboxes holds only if nothing is counted twice or forgotten."""
    process.put("p.1!a", "1", "2", "3", "refused")
    process.put("p.1!b", "old", deadline=NOW)
    process.put("p.1!b", "4")
    assert process.boxes.messages == 5
    process.take("p.1!a")
    assert process.boxes.messages == 4
    process.boxes.expire(NOW)
    assert process.boxes.messages == 3
    process.take_shared("p.1!")
    assert process.boxes.messages == 2
    process.boxes.forget(process.boxes.open("p.1!a"))
    process.boxes.forget(process.boxes.open("p.1!b"))
    assert process.boxes.messages == 0
    assert len(process.boxes) == 0


def test_messages_taken_by_name_leave_nothing_behind() -> None:
    """After a receiver of the part up to ``!``, receivers of full names cost no memory."""
    process = Process()
    assert process.take_shared("p.1!") is None
    for number in range(10 * MAX_STALE):
        process.put("p.1!a", str(number))
        assert process.take("p.1!a") == str(number)
    shared = process.boxes.shared("p.1!")
    assert shared.ready is not None
    assert len(shared.ready) < 3 * MAX_STALE


def test_a_forgotten_mailbox_delivers_nothing() -> None:
    """What was counted as lost when its mailbox was forgotten does not come after all."""
    process = Process()
    assert process.take_shared("p.1!") is None
    process.put("p.1!a", "1")
    process.boxes.forget(process.boxes.open("p.1!a"))
    assert process.take_shared("p.1!") is None
    assert process.boxes.messages == 0


def test_a_message_for_many_is_a_value_of_each(process: Process) -> None:
    """Whatever one receiver does to what it got, flat or nested, changes nothing elsewhere."""
    flat = {"type": "chat", "text": "hello", "to": None, "n": 1.5, "raw": b"x"}
    nested = {"type": "chat", "tags": ["a"], "user": {"name": "b"}}
    for message in (flat, nested):
        one = SharedParcel(encode_body(message, 1000), b"", NOW)
        first, second = one.open(None), one.open(None)
        assert first == second == message
        first.clear()
        second["type"] = "changed"
        for value in second.values():
            if isinstance(value, list | dict):
                value.clear()
        assert one.open(None) == message


def test_a_message_for_many_is_deciphered_once() -> None:
    """By the first who opens it; and one that nobody can decipher is refused to each."""
    calls = []

    def decipher(body: bytes, context: bytes) -> bytes:
        calls.append(context)
        if body == b"foreign":
            raise DecryptFailed
        return body

    for message in ({"type": "flat"}, {"nested": [1]}):
        one = SharedParcel(encode_body(message, 1000), b"group", NOW)
        assert [one.open(decipher) for _ in range(3)] == [message] * 3
    assert calls == [b"group"] * 2
    foreign = SharedParcel(b"foreign", b"group", NOW)
    for _ in range(2):
        with pytest.raises(DecryptFailed):
            foreign.open(decipher)


def test_a_message_for_many_wakes_a_receiver_of_each(process: Process) -> None:
    """One that waits by the full name or by the part up to ``!``; members without one keep it."""
    audience = process.audience("p.1!a", "p.1!b", "p.2!a")
    process.put_all(audience, "before")
    own, shared = process.waiting_at("p.1!a"), process.waiting_at("p.2!")
    assert process.take_shared("p.2!") == ("p.2!a", "before")
    process.put_all(audience, "one")
    assert own.woken
    assert shared.woken
    assert [process.take("p.1!b") for _ in range(3)] == ["before", "one", None]
    assert process.take_shared("p.2!") == ("p.2!a", "one")


_names = st.sampled_from(["p.1!a", "p.1!b", "p.2!a", "q"])
_steps = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "take", "take_all", "put_back", "forget"]), _names),
    st.tuples(st.just("put_all"), st.sampled_from(["few", "all"])),
    st.tuples(st.just("take_shared"), st.sampled_from(["p.1!", "p.2!"])),
    st.tuples(st.sampled_from(["expire", "clear"]), st.none()),
)


class Accounts(Process):
    """Does what a strategy says, and knows from the outside what must be in the mailboxes."""

    def __init__(self) -> None:
        super().__init__(capacity=4)
        self.number = 0
        self.inside: defaultdict[str, list[str]] = defaultdict(list)
        self.groups = {"few": ("p.1!a", "p.2!a"), "all": ("p.1!a", "p.1!b", "p.2!a", "q")}
        self._join()

    def step(self, verb: str, name: str | None) -> None:
        if verb == "put" and name is not None:
            self.number += 1
            if len(self.inside[name]) < 4:
                self.inside[name].append(str(self.number))
            self.put(name, str(self.number))
        elif verb == "put_all" and name is not None:
            self.number += 1
            for member in self.groups[name]:
                if len(self.inside[member]) < 4:
                    self.inside[member].append(str(self.number))
            self.put_all(self.audiences[name], str(self.number))
        elif verb == "take" and name is not None:
            assert self.take(name) == (self.inside[name].pop(0) if self.inside[name] else None)
        elif verb == "put_back" and name is not None:
            self.number += 1
            self.inside[name].insert(0, str(self.number))
            self.boxes.put_back(self.boxes.open(name), parcel(str(self.number)))
        elif verb == "take_shared" and name is not None:
            self.take_from_any(name)
        elif verb == "expire":
            assert self.boxes.expire(NOW) == []
        elif verb == "clear":
            self.inside.clear()
            self.boxes.clear()
        elif name is not None:
            self.inside[name].clear()
            getattr(self.boxes, verb)(self.boxes.open(name))
            self._join()  # a mailbox that is forgotten leaves its groups before

    def _join(self) -> None:
        self.audiences = {name: self.audience(*members) for name, members in self.groups.items()}

    def take_from_any(self, inbox: str) -> None:
        """A shared receiver gets the head of one of the mailboxes, if any has a message."""
        found = self.take_shared(inbox)
        names = [name for name, held in self.inside.items() if name.startswith(inbox) and held]
        if found is None:
            assert not names
        else:
            assert self.inside[found[0]].pop(0) == found[1]


@given(st.lists(_steps, max_size=50))
def test_receivers_of_either_kind_share_the_same_messages(steps: list[tuple[str, Any]]) -> None:
    """Whatever is put, taken, put back, dropped: no message twice, none hidden, all accounted."""
    accounts = Accounts()
    for step in steps:
        accounts.step(*step)
        assert accounts.boxes.messages == sum(map(len, accounts.inside.values()))
