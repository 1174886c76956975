"""A store inside this OS process, shared by name: for tests and single-process programs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from topology.codec import decode, encode
from topology.errors import LockHeld, StoreUnavailable
from topology.history import KEPT_ENTRIES, Entry, Holder, decode_entry, encode_entry
from topology.model import Topology
from topology.ports import Lock, StoreServer
from topology.stores.swap import require_swappable

Notify = Callable[[], None]


class _Cell:
    """What all stores of one name share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.data: bytes | None = None
        self.watchers: dict[object, Notify] = {}
        self.history: deque[bytes] = deque(maxlen=KEPT_ENTRIES)
        self.holders: dict[str, tuple[Holder, object]] = {}


_cells: dict[str, _Cell] = {}
_cells_lock = threading.Lock()


class _MemoryLock:
    """It is ours as long as the cell says so."""

    def __init__(self, cell: _Cell, name: str) -> None:
        self._cell = cell
        self._name = name

    def held(self) -> bool:
        found = self._cell.holders.get(self._name)
        return found is not None and found[1] is self

    def release(self) -> None:
        with self._cell.lock:
            if self.held():
                del self._cell.holders[self._name]


class MemoryStore:
    """All stores of one name in one process see the same topology, as long as the process lives."""

    def __init__(self, name: str) -> None:
        self._name = name
        with _cells_lock:
            self._cell = _cells.setdefault(name, _Cell())
        self._keys: list[object] = []
        self._locks: list[_MemoryLock] = []
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

    def append_history(self, entry: Entry) -> None:
        self._require_open()
        self._cell.history.append(encode_entry(entry))

    def history(self, limit: int = 100) -> Sequence[Entry]:
        self._require_open()
        return [decode_entry(data) for data in list(self._cell.history)[-limit:]]

    def lock(self, name: str, holder: Holder, *, steal: bool = False) -> Lock:
        self._require_open()
        with self._cell.lock:
            found = self._cell.holders.get(name)
            if found is not None and not steal:
                raise LockHeld(name, found[0])
            lock = _MemoryLock(self._cell, name)
            self._cell.holders[name] = (holder, lock)
        self._locks.append(lock)
        return lock

    def holder(self, name: str) -> Holder | None:
        self._require_open()
        found = self._cell.holders.get(name)
        return None if found is None else found[0]

    def servers(self) -> Sequence[StoreServer]:
        self._require_open()
        return [StoreServer(f"memory://{self._name}", latency_s=0.0)]

    def close(self) -> None:
        self._closed = True
        for lock in self._locks:
            lock.release()
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
