"""The production store: one znode, written by compare-and-set on its version.

Beside it, under the same name and a suffix: ``.history``, whose children are entries, and
``.locks``, whose children are ephemeral.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError
from kazoo.protocol.states import EventType

from topology.codec import decode, encode
from topology.errors import LockHeld, StaleEpoch, TopologyError, TopologyInvalid
from topology.history import (
    KEPT_ENTRIES,
    Entry,
    Holder,
    decode_holder,
    encode_entry,
    encode_holder,
    readable_entries,
)
from topology.model import Topology
from topology.ports import Lock, StoreServer
from topology.stores.options import ZooKeeperOptions
from topology.stores.swap import require_swappable
from topology.stores.zookeeper_session import Session, Sessions

Notify = Callable[[], None]

_log = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 5


class ZooKeeperStore:
    """Reads cost one request; a lost connection heals by itself, also after a lost session."""

    def __init__(self, hosts: str, path: str, options: ZooKeeperOptions) -> None:
        self._path = path
        self._sessions = Sessions(hosts, path, options, self._set_watch)
        self._lock = threading.Lock()  # guards the watchers
        self._watchers: dict[object, Notify] = {}

    def read(self) -> Topology | None:
        found = self._found(self._path, self._sessions.deadline())
        return None if found is None else decode(found[0])

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        # Encoding refuses what is too large: ZooKeeper would only drop the connection.
        data = encode(topology)
        deadline = self._sessions.deadline()
        found = self._found(self._path, deadline)
        current = None if found is None else decode(found[0])
        require_swappable(current, topology, expected_epoch=expected_epoch)
        try:
            self._swap(data, None if found is None else found[1], deadline)
        except (BadVersionError, NodeExistsError, NoNodeError):
            now = self.read()
            raise StaleEpoch(expected_epoch, None if now is None else now.epoch) from None

    def watch(self, notify: Notify) -> Callable[[], None]:
        key = object()
        with self._lock:
            self._watchers[key] = notify
        session = self._sessions.open()
        if session.client.connected:  # else the watch is set when it is
            self._set_watch(session)
        return lambda: self._cancel(key)

    def append_history(self, entry: Entry) -> None:
        data = encode_entry(entry)
        deadline, parent = self._sessions.deadline(), f"{self._path}.history"
        self._sessions.tell(
            lambda client: client.create_async(
                f"{parent}/entry-", data, acl=self._sessions.acl, sequence=True, makepath=True
            ),
            deadline,
        )
        for name in self._entry_names(deadline)[:-KEPT_ENTRIES]:
            self._delete(f"{parent}/{name}", deadline)

    def history(self, limit: int = 100) -> Sequence[Entry]:
        deadline = self._sessions.deadline()
        names = self._entry_names(deadline)[-limit:]
        found = [self._found(f"{self._path}.history/{name}", deadline) for name in names]
        return readable_entries(data for data, _ in filter(None, found))

    def lock(self, name: str, holder: Holder, *, steal: bool = False) -> Lock:
        path, deadline = f"{self._path}.locks/{name}", self._sessions.deadline()
        token = secrets.token_hex(8)
        data = encode_holder(holder, token)
        for _ in range(_LOCK_ATTEMPTS):
            if steal:
                self._delete(path, deadline)
            try:
                self._sessions.tell(
                    lambda client: client.create_async(
                        path, data, acl=self._sessions.acl, ephemeral=True, makepath=True
                    ),
                    deadline,
                    NodeExistsError,
                )
            except NodeExistsError:
                found = self._holder(path, deadline)
                if found is not None and not steal:
                    raise LockHeld(name, found[0]) from None
            else:
                return _ZooKeeperLock(self, path, token)
        raise LockHeld(name, None)

    def holder(self, name: str) -> Holder | None:
        found = self._holder(f"{self._path}.locks/{name}", self._sessions.deadline())
        return None if found is None else found[0]

    def servers(self) -> Sequence[StoreServer]:
        return self._sessions.look_at_servers()

    def close(self) -> None:
        with self._lock:
            self._watchers.clear()
        self._sessions.close()

    def __repr__(self) -> str:
        return str(self._sessions)

    def holds(self, path: str, token: str) -> bool:
        """Whether the lock there is the one with the token."""
        found = self._holder(path, self._sessions.deadline())
        return found is not None and found[1] == token

    def let_go(self, path: str, token: str) -> None:
        """Delete the lock if it is the one with the token."""
        if self.holds(path, token):
            self._delete(path, self._sessions.deadline())

    def _found(self, path: str, deadline: float) -> tuple[bytes, int] | None:
        """A znode's bytes and version; None if there is none."""
        try:
            data, status = self._sessions.ask(
                lambda client: client.get_async(path), deadline, NoNodeError
            )
        except NoNodeError:
            return None
        return data, status.version

    def _swap(self, data: bytes, version: int | None, deadline: float) -> None:
        expected = (BadVersionError, NodeExistsError, NoNodeError)
        if version is None:
            self._sessions.tell(
                lambda client: client.create_async(
                    self._path, data, acl=self._sessions.acl, makepath=True
                ),
                deadline,
                *expected,
            )
        else:
            self._sessions.tell(
                lambda client: client.set_async(self._path, data, version=version),
                deadline,
                *expected,
            )

    def _delete(self, path: str, deadline: float) -> None:
        try:
            self._sessions.tell(lambda client: client.delete_async(path), deadline, NoNodeError)
        except NoNodeError:
            return

    def _entry_names(self, deadline: float) -> list[str]:
        """Oldest first: ZooKeeper numbers them with ten digits."""
        try:
            names: list[str] = self._sessions.ask(
                lambda client: client.get_children_async(f"{self._path}.history"),
                deadline,
                NoNodeError,
            )
        except NoNodeError:
            return []
        return sorted(names)

    def _holder(self, path: str, deadline: float) -> tuple[Holder | None, str] | None:
        """Who has a lock, and the token; None: nobody."""
        found = self._found(path, deadline)
        if found is None:
            return None
        try:
            return decode_holder(found[0])
        except TopologyInvalid:
            return None, ""

    def _set_watch(self, session: Session) -> None:
        """Ask for one event, then notify: who reads after that misses nothing."""
        pending = session.client.exists_async(self._path, watch=self._on_event)
        pending.rawlink(lambda _: self._notify())

    def _on_event(self, event: Any) -> None:
        session = self._sessions.current
        if event.type != EventType.NONE and session is not None:
            self._set_watch(session)

    def _notify(self) -> None:
        with self._lock:
            watchers = list(self._watchers.values())
        for notify in watchers:
            notify()

    def _cancel(self, key: object) -> None:
        with self._lock:
            self._watchers.pop(key, None)


class _ZooKeeperLock:
    """It is gone when the session is, and that it is, only the server knows."""

    def __init__(self, store: ZooKeeperStore, path: str, token: str) -> None:
        self._store = store
        self._path = path
        self._token = token

    def held(self) -> bool:
        return self._store.holds(self._path, self._token)

    def release(self) -> None:
        try:
            self._store.let_go(self._path, self._token)
        except TopologyError as error:
            _log.warning("%s is released at the end of its session only: %s", self._path, error)
