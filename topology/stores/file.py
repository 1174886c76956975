"""A store in one local file: the default for all processes of one host."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from topology.atomic import read_at_most, replace_file
from topology.codec import MAX_BYTES, decode, encode
from topology.errors import StoreUnavailable
from topology.history import Entry, Holder, encode_entry, readable_entries
from topology.model import Topology
from topology.ports import Lock, StoreServer
from topology.stores.file_records import FileLock, append_line, holder_of, last_lines, take_lock
from topology.stores.swap import require_swappable

Notify = Callable[[], None]
_Signature = tuple[int, int, int] | None

_LOCK_RETRY_S = 0.02


class FileStore:
    """Atomic replacement, a lock beside the file for the compare-and-set, and a look every poll.

    A look is one ``stat`` call, so that it needs no system facility that containers may lack.
    """

    def __init__(self, path: Path, *, poll_s: float = 0.2, timeout_s: float = 5.0) -> None:
        self._path = path
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # guards the watchers and the thread
        self._watchers: dict[object, Notify] = {}
        self._thread: Thread | None = None
        self._locks: list[FileLock] = []
        self._closed = Event()

    def read(self) -> Topology | None:
        self._require_open()
        try:
            data = read_at_most(self._path, MAX_BYTES)
        except OSError as error:
            raise self._unavailable("read", error) from error
        return None if data is None else decode(data)

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        self._require_open()
        data = encode(topology)
        try:
            with self._locked():
                require_swappable(self.read(), topology, expected_epoch=expected_epoch)
                replace_file(self._path, data, keep_access=True)
        except OSError as error:
            raise self._unavailable("write", error) from error

    def watch(self, notify: Notify) -> Callable[[], None]:
        self._require_open()
        key = object()
        with self._lock:
            self._watchers[key] = notify
            if self._thread is None:
                # The first look is taken here: what changes from now on is not missed.
                self._thread = Thread(
                    target=self._look_for_changes,
                    args=(self._signature(),),
                    name=f"topology-file-{self._path.name}",
                    daemon=True,
                )
                self._thread.start()
        return lambda: self._cancel(key)

    def append_history(self, entry: Entry) -> None:
        self._require_open()
        data = encode_entry(entry)
        try:
            with self._locked():
                append_line(self._beside("history"), data)
        except OSError as error:
            raise self._unavailable("write the history of", error) from error

    def history(self, limit: int = 100) -> Sequence[Entry]:
        self._require_open()
        try:
            lines = last_lines(self._beside("history"), limit)
        except OSError as error:
            raise self._unavailable("read the history of", error) from error
        return readable_entries(lines)

    def lock(self, name: str, holder: Holder, *, steal: bool = False) -> Lock:
        self._require_open()
        try:
            lock = take_lock(self._beside(f"{name}.lock"), name, holder, steal=steal)
        except OSError as error:
            raise self._unavailable(f"take the lock {name!r} of", error) from error
        self._locks.append(lock)
        return lock

    def holder(self, name: str) -> Holder | None:
        self._require_open()
        try:
            return holder_of(self._beside(f"{name}.lock"))
        except OSError as error:
            raise self._unavailable(f"look at the lock {name!r} of", error) from error

    def servers(self) -> Sequence[StoreServer]:
        self._require_open()
        began = time.monotonic()
        try:
            with self._locked():
                read_at_most(self._path, MAX_BYTES)
        except (OSError, StoreUnavailable) as error:
            return [StoreServer(str(self._path), str(error))]
        return [StoreServer(str(self._path), latency_s=time.monotonic() - began)]

    def close(self) -> None:
        self._closed.set()
        for lock in self._locks:
            lock.release()
        with self._lock:
            self._watchers.clear()
            thread = self._thread
        if thread is not None:
            thread.join(self._timeout_s)

    def __repr__(self) -> str:
        return f"FileStore({str(self._path)!r})"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A lock file of its own: the topology's file is replaced, and its locks with it."""
        descriptor = os.open(self._beside("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")

    def _acquire(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise self._unavailable(
                        "write", f"another process held the lock for {self._timeout_s:g} s"
                    ) from error
            self._closed.wait(_LOCK_RETRY_S)

    def _look_for_changes(self, seen: _Signature) -> None:
        while not self._closed.wait(self._poll_s):
            now = self._signature()
            if now == seen:
                continue
            seen = now
            with self._lock:
                watchers = list(self._watchers.values())
            for notify in watchers:
                notify()

    def _signature(self) -> _Signature:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _cancel(self, key: object) -> None:
        with self._lock:
            self._watchers.pop(key, None)

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnavailable(f"the store {self._path} is closed")

    def _unavailable(self, verb: str, error: object) -> StoreUnavailable:
        return StoreUnavailable(f"cannot {verb} the topology file {self._path}: {error}")
