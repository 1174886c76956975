"""Stores that are closed whatever becomes of the test."""

from collections.abc import Callable, Iterator

import pytest

from topology.ports import OperatorStore
from topology.stores import open_store


@pytest.fixture
def opened() -> Iterator[Callable[..., OperatorStore]]:
    """`open_store` whose stores are closed at the end."""
    stores: list[OperatorStore] = []

    def open_one(url: str, **options: object) -> OperatorStore:
        stores.append(open_store(url, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()
