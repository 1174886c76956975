"""What every store promises to operators: a history, and locks that tell who is at work."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.contracts.places import Place
from tests.topology.strategies import CLUSTER, OPERATOR
from topology.errors import LockHeld, StoreUnavailable
from topology.history import KEPT_ENTRIES, Entry, Holder, Kind
from topology.model import Operator, Shard
from topology.planning import initial_topology

BEFORE = initial_topology([Shard("a", "redis://:secret@a:6379")], cluster=CLUSTER)
BEGUN = Entry(
    1_700_000_000.25,
    Kind.BEGUN,
    OPERATOR,
    2,
    "add shard d",
    "1" * 16,
    {"observers": ["p1", "p2"], "for_s": 1.5, "none": None},
    BEFORE,
)
FINISHED = Entry(1_700_000_001, Kind.FINISHED, OPERATOR, 5, "«add» shard d")
ADA, EVE = Holder(OPERATOR, 1_700_000_000.5), Holder(Operator("eve", "ops-2", 1), 1_700_000_009)


def test_history_is_what_was_appended_oldest_first(place: Place) -> None:
    """Entries come back equal, through every client of the place."""
    assert list(place.open().history()) == []
    place.open().append_history(BEGUN)
    place.open().append_history(FINISHED)
    assert list(place.open().history()) == [BEGUN, FINISHED]
    assert list(place.open().history(1)) == [FINISHED]


def test_history_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entries go, and what is left can be read."""
    store = place.open()
    for number in range(KEPT_ENTRIES + 60):
        store.append_history(replace(FINISHED, epoch=number + 1))
    found = store.history(10**6)
    assert len(found) <= KEPT_ENTRIES + 50
    epochs = [entry.epoch for entry in found]
    assert epochs == list(range(epochs[0], KEPT_ENTRIES + 61))


def test_entries_of_several_writers_are_all_there(place: Place) -> None:
    """Whoever appends at the same time loses nothing."""
    stores = [place.open() for _ in range(4)]

    def append(number: int) -> None:
        stores[number % 4].append_history(replace(FINISHED, epoch=number + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(40)))
    assert sorted(entry.epoch for entry in place.open().history()) == list(range(1, 41))


def test_a_history_has_nothing_to_do_with_the_topology(place: Place) -> None:
    """Neither creates nor changes the other, and the topology can be deleted."""
    store = place.open()
    store.append_history(BEGUN)
    store.lock("operator", ADA)
    assert store.read() is None
    store.write(BEFORE, expected_epoch=None)
    place.delete()
    assert store.read() is None
    assert list(store.history()) == [BEGUN]


def test_a_lock_tells_who_holds_it(place: Place) -> None:
    """The second one is told; when the first releases it, it can be taken."""
    first, second = place.open(), place.open()
    assert first.holder("operator") is None
    lock = first.lock("operator", ADA)
    assert lock.held()
    assert second.holder("operator") == ADA
    with pytest.raises(LockHeld) as caught:
        second.lock("operator", EVE)
    assert caught.value.holder == ADA
    assert str(OPERATOR) in str(caught.value)
    lock.release()
    lock.release()
    assert not lock.held()
    assert second.holder("operator") is None
    assert second.lock("operator", EVE).held()
    assert first.holder("operator") == EVE


def test_locks_of_other_names_are_other_locks(place: Place) -> None:
    """An operator does not hinder the monitors."""
    store = place.open()
    assert store.lock("operator", ADA).held()
    assert store.lock("monitor", EVE).held()


def test_a_lock_ends_with_its_store(place: Place) -> None:
    """Who is gone holds nothing."""
    store = place.open()
    store.lock("operator", ADA)
    store.close()
    assert place.open().lock("operator", EVE).held()


def test_a_lock_can_be_stolen(place: Place) -> None:
    """The thief has it, the former holder can see that, and its release changes nothing."""
    first, second = place.open(), place.open()
    old = first.lock("operator", ADA)
    new = second.lock("operator", EVE, steal=True)
    assert (old.held(), new.held()) == (False, True)
    old.release()
    assert new.held()
    assert first.holder("operator") == EVE
    with pytest.raises(LockHeld):
        first.lock("operator", ADA)


def test_of_many_at_once_one_gets_the_lock(place: Place) -> None:
    """Eight stores that want it: one has it, and seven are told."""
    stores = [place.open() for _ in range(8)]

    def attempt(number: int) -> bool:
        try:
            return stores[number].lock("monitor", ADA).held()
        except LockHeld:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_store_tells_how_its_servers_are(place: Place) -> None:
    """Each one that serves says how soon it answered; asking leaves the topology as it is."""
    store = place.open()
    (server,) = store.servers()
    assert (server.serves, server.reason) == (True, None)
    assert server.latency_s is not None
    assert server.address in place.url or place.url.startswith(server.address)
    assert store.read() is None


def test_a_closed_store_has_neither(place: Place) -> None:
    """Every call afterwards is a definite error."""
    store = place.open()
    store.close()
    for call in (
        lambda: store.append_history(BEGUN),
        store.history,
        lambda: store.lock("operator", ADA),
        lambda: store.holder("operator"),
        store.servers,
    ):
        with pytest.raises(StoreUnavailable, match="closed") as caught:
            call()
        assert caught.value.definite
