"""What every topology store promises, asked of all of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Event

import pytest
from kazoo.exceptions import NoNodeError

from tests.contracts.places import Place
from tests.support.waiting import eventually
from tests.topology.strategies import CLUSTER
from topology.codec import MAX_BYTES
from topology.errors import StaleEpoch, StoreUnavailable, TopologyInvalid, TopologyTooLarge
from topology.model import Shard, Topology
from topology.planning import initial_topology
from topology.ports import TopologyStore

FIRST = initial_topology(
    [Shard("a", "redis://a:6379"), Shard("b", "redis://:secret@b:6379", 2)], cluster=CLUSTER
)
SECOND = replace(FIRST, epoch=2)
TOO_LARGE = initial_topology(
    [Shard(f"{i}", f"redis://{i}/{'x' * 2030}") for i in range(256)], cluster=CLUSTER
)


def test_an_empty_place_reads_as_none(place: Place) -> None:
    """Nothing there is an answer, not an error."""
    assert place.open().read() is None


def test_what_one_store_writes_another_reads(place: Place) -> None:
    """A topology arrives equal, through every client of the place."""
    place.open().write(FIRST, expected_epoch=None)
    assert place.open().read() == FIRST


def test_only_the_expected_epoch_is_replaced(place: Place) -> None:
    """Compare-and-set: whoever decided on another epoch is refused, and nothing changes."""
    store = place.open()
    with pytest.raises(StaleEpoch) as missing:
        store.write(SECOND, expected_epoch=1)
    assert (missing.value.expected, missing.value.found) == (1, None)
    store.write(FIRST, expected_epoch=None)
    for expected in (None, 2):
        with pytest.raises(StaleEpoch) as stale:
            place.open().write(SECOND, expected_epoch=expected)
        assert (stale.value.expected, stale.value.found) == (expected, 1)
        assert stale.value.definite
    store.write(SECOND, expected_epoch=1)
    assert place.open().read() == SECOND


def test_an_epoch_never_goes_back(place: Place) -> None:
    """The next epoch must be higher than the one that it replaces."""
    store = place.open()
    store.write(SECOND, expected_epoch=None)
    for epoch in (1, 2):
        with pytest.raises(TopologyInvalid, match=f"epoch {epoch} cannot follow epoch 2"):
            store.write(replace(FIRST, epoch=epoch), expected_epoch=2)
    assert store.read() == SECOND


def test_of_many_writers_at_once_one_wins(place: Place) -> None:
    """Eight stores that all expect the same epoch: one succeeds, seven are stale."""
    place.open().write(FIRST, expected_epoch=None)
    rivals = [(place.open(), replace(FIRST, epoch=2 + i)) for i in range(8)]

    def attempt(rival: tuple[TopologyStore, Topology]) -> Topology | None:
        with suppress(StaleEpoch):
            rival[0].write(rival[1], expected_epoch=1)
            return rival[1]
        return None

    with ThreadPoolExecutor(8) as pool:
        winners = [won for won in pool.map(attempt, rivals) if won is not None]
    assert winners == [place.open().read()]


def test_one_store_serves_many_threads(place: Place) -> None:
    """Readers in threads see whole topologies while a writer replaces them."""
    store = place.open()
    store.write(FIRST, expected_epoch=None)

    def read_epochs(_: int) -> list[int]:
        found = [store.read() for _ in range(20)]
        assert all(topology is not None and topology.table == FIRST.table for topology in found)
        return [topology.epoch for topology in found if topology is not None]

    with ThreadPoolExecutor(4) as pool:
        reading = pool.map(read_epochs, range(4))
        for epoch in range(2, 12):
            store.write(replace(FIRST, epoch=epoch), expected_epoch=epoch - 1)
        assert all(epochs == sorted(epochs) for epochs in reading)


def test_what_is_too_large_is_refused_before_it_is_written(place: Place) -> None:
    """The store is as it was, and still works."""
    store = place.open()
    with pytest.raises(TopologyTooLarge):
        store.write(TOO_LARGE, expected_epoch=None)
    assert store.read() is None
    store.write(FIRST, expected_epoch=None)


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff" * 100, b" " * (MAX_BYTES + 1)])
def test_garbage_is_told_from_a_topology(place: Place, garbage: bytes) -> None:
    """Reading and writing over garbage or an oversize value is an error that says so."""
    store = place.open()
    place.put(garbage)
    with pytest.raises(TopologyInvalid):
        store.read()
    with pytest.raises(TopologyInvalid):
        store.write(FIRST, expected_epoch=None)


def test_every_change_is_hinted(place: Place) -> None:
    """Creation, replacement, deletion and garbage each give a hint; a cancelled watch none."""
    hinted, cancelled = Event(), Event()
    watching, writing = place.open(), place.open()
    watching.watch(hinted.set)
    watching.watch(cancelled.set)()
    assert watching.read() is None
    changes: list[Callable[[], object]] = [
        lambda: writing.write(FIRST, expected_epoch=None),
        lambda: writing.write(SECOND, expected_epoch=1),
    ]
    if not place.url.startswith("memory"):  # which nobody can reach but through a store
        changes += [lambda: place.put(b"garbage"), place.delete, lambda: place.put(b"again")]
    cancelled.clear()
    for change in changes:
        hinted.clear()
        change()
        assert hinted.wait(30)
    assert not cancelled.is_set()


def test_a_hint_comes_after_the_change_is_readable(place: Place) -> None:
    """Who reads after each hint ends with the newest, without any poll."""
    store, seen = place.open(), set[int]()
    hinted = Event()
    store.watch(hinted.set)

    def read_when_hinted() -> bool:
        if hinted.is_set():
            hinted.clear()
            found = store.read()
            seen.add(found.epoch if found else 0)
        return 20 in seen

    writer = place.open()
    for epoch in range(1, 21):
        writer.write(replace(FIRST, epoch=epoch), expected_epoch=epoch - 1 or None)
        read_when_hinted()
    eventually(read_when_hinted)


def test_a_closed_store_says_so(place: Place) -> None:
    """Closing twice is harmless; every call afterwards is a definite error."""
    store = place.open()
    store.watch(lambda: None)
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        store.read,
        lambda: store.write(FIRST, expected_epoch=None),
        lambda: store.watch(lambda: None),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed") as caught:
            call()
        assert caught.value.definite


def test_another_program_may_delete_it(place: Place) -> None:
    """After a deletion the place is empty, and a topology can be created again."""
    store = place.open()
    store.write(SECOND, expected_epoch=None)
    with suppress(NoNodeError):
        place.delete()
    assert store.read() is None
    with pytest.raises(StaleEpoch):
        store.write(replace(FIRST, epoch=3), expected_epoch=2)
    store.write(FIRST, expected_epoch=None)
    assert store.read() == FIRST
