"""A store inside this OS process, shared by name: for tests and single-process programs."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from topology.codec import decode, encode
from topology.errors import StoreUnavailable
from topology.model import Topology
from topology.stores.swap import require_swappable

Notify = Callable[[], None]


class _Cell:
    """What all stores of one name share."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.data: bytes | None = None
        self.watchers: dict[object, Notify] = {}


_cells: dict[str, _Cell] = {}
_cells_lock = Lock()


class MemoryStore:
    """All stores of one name in one process see the same topology, as long as the process lives."""

    def __init__(self, name: str) -> None:
        self._name = name
        with _cells_lock:
            self._cell = _cells.setdefault(name, _Cell())
        self._keys: list[object] = []
        self._closed = False

    def read(self) -> Topology | None:
        self._require_open()
        with self._cell.lock:
            data = self._cell.data
        return None if data is None else decode(data)

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        self._require_open()
        data = encode(topology)
        with self._cell.lock:
            found = None if self._cell.data is None else decode(self._cell.data)
            require_swappable(found, topology, expected_epoch=expected_epoch)
            self._cell.data = data
            watchers = list(self._cell.watchers.values())
        for notify in watchers:
            notify()

    def watch(self, notify: Notify) -> Callable[[], None]:
        self._require_open()
        key = object()
        with self._cell.lock:
            self._cell.watchers[key] = notify
            self._keys.append(key)
        return lambda: self._cancel(key)

    def close(self) -> None:
        self._closed = True
        for key in list(self._keys):
            self._cancel(key)

    def __repr__(self) -> str:
        return f"MemoryStore({self._name!r})"

    def _cancel(self, key: object) -> None:
        with self._cell.lock:
            self._cell.watchers.pop(key, None)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store memory://{self._name} is closed")
