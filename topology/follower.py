"""A thread that keeps the newest valid topology, whatever happens to the store."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from threading import Event, Lock, Thread, current_thread

from topology.atomic import read_at_most, replace_file
from topology.codec import MAX_BYTES, decode, encode
from topology.errors import TopologyError, TopologyInvalid, TopologyUnavailable
from topology.model import Topology
from topology.ports import TopologyStore

Subscriber = Callable[[Topology], None]

_log = logging.getLogger(__name__)

#: Pause after the store did not answer; normally its watch tells of its return.
_RETRY_S = 1.0
_CLOSE_S = 10.0


class Condition(Enum):
    """Why the store's answer does not replace the topology in use."""

    UNREACHABLE = "the topology store cannot be read"
    MISSING = "the topology store is empty"
    INVALID = "the topology store holds what is not a valid topology"
    LOWER_EPOCH = "the topology store holds a lower epoch than the one in use"
    CONFLICT = "the topology store holds another topology of the same epoch"
    FOREIGN = "the topology store holds the topology of another cluster"
    UNUSABLE = "the topology store holds a topology that this process cannot use"


def objection_to(found: Topology, current: Topology | None) -> Condition | None:
    """Why what was found must not replace the current topology; None if it may."""
    if current is None or found == current:
        return None
    if found.cluster != current.cluster:  # their epochs have nothing to do with each other
        return Condition.FOREIGN
    if found.epoch > current.epoch:
        return None
    return Condition.LOWER_EPOCH if found.epoch < current.epoch else Condition.CONFLICT


class Follower:
    """Follows a store by its watch and a jittered poll; owns the store and closes it.

    ``current`` is the newest valid topology, a plain attribute that exists once ``start`` has
    returned; nothing removes it or lowers its epoch. ``counts`` says how often each condition was
    met. ``jitter`` gives numbers from 0 to 1. ``why_not`` tells why this process can't use a
    topology, None if it can: such a one replaces none that is known. Start it once, after a fork.
    """

    current: Topology

    def __init__(
        self,
        store: TopologyStore,
        last_good: Path | None,
        *,
        poll_s: float = 30.0,
        jitter: Callable[[], float] = random.random,
        why_not: Callable[[Topology], str | None] = lambda _topology: None,
    ) -> None:
        self._store = store
        self._last_good = last_good
        self._poll_s = poll_s
        self._jitter = jitter
        self._why_not = why_not
        self.counts: Counter[Condition] = Counter()
        #: What is wrong now; None while the store's answers are good.
        self.condition: Condition | None = None
        self._reason = "no answer yet"
        self._copy_failed = False
        self._known: Topology | None = None
        self._offered: Topology | None = None
        self._subscribers: dict[object, Subscriber] = {}
        self._lock = Lock()  # guards the subscribers and what is offered
        self._wake = Event()
        self._answered = Event()
        self._found = Event()
        self._closing = Event()
        self._thread: Thread | None = None

    def start(self, timeout_s: float) -> Topology:
        """The store's topology, or the last-good copy's if the store gives none.

        TopologyUnavailable after the timeout if neither has one; the follower is closed then.
        """
        deadline = time.monotonic() + timeout_s
        self._load_copy()
        self._thread = Thread(target=self._run, name="topology-follower", daemon=True)
        self._thread.start()
        self._answered.wait(timeout_s)
        if not self._found.wait(max(0.0, deadline - time.monotonic())):
            self._closing.set()  # the thread closes the store: that may take longer than we have
            self._wake.set()
            raise TopologyUnavailable(
                f"no topology within {timeout_s:g} s: {self._reason}; {self._copy_shown()}"
            )
        return self.current

    def offer(self, topology: Topology) -> None:
        """Take note of a topology that came by another way, if it is newer; from any thread.

        It is kept in the copy, and nothing older of the store's counts from now on.
        """
        with self._lock:
            newest = max((self._offered, self._known), key=_epoch)
            if topology.epoch <= _epoch(newest):
                return
            self._offered = topology
        self._wake.set()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with each newer topology, from the follower's thread; returns the cancel.

        Read ``current`` after subscribing: a topology may have come in between.
        """
        key = object()
        with self._lock:
            self._subscribers[key] = callback
        return lambda: self._cancel(key)

    def close(self) -> None:
        """Ends the thread and closes the store; ``current`` stays. Idempotent."""
        self._closing.set()
        self._wake.set()
        self._store.close()
        if self._thread not in (None, current_thread()):  # a subscriber may close us
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            self._store.watch(self._wake.set)
        except TopologyError as error:
            _log.warning("changes of the topology are found by polling only: %s", error)
        while not self._closing.is_set():
            self._wake.clear()
            self._take_offered()
            self._look()
            self._answered.set()
            self._wake.wait(self._pause_s())
        self._store.close()

    def _take_offered(self) -> None:
        with self._lock:
            offered, self._offered = self._offered, None
        if offered is not None and offered.epoch > _epoch(self._known):
            self._adopt(offered)
            self._call_subscribers(offered)
            self._save_copy(offered)

    def _pause_s(self) -> float:
        soon = self._known is None or self.condition is Condition.UNREACHABLE
        pause_s = min(_RETRY_S, self._poll_s) if soon else self._poll_s
        return pause_s * (0.5 + self._jitter())

    def _look(self) -> None:
        try:
            found = self._store.read()
        except TopologyInvalid as error:
            self._meet(Condition.INVALID, str(error))
        except TopologyError as error:
            self._meet(Condition.UNREACHABLE, str(error))
        except Exception as error:  # noqa: BLE001 - if the thread died, the old would be served for ever
            self._meet(Condition.UNREACHABLE, repr(error))
        else:
            self._judge(found)

    def _judge(self, found: Topology | None) -> None:
        if found is None:
            self._meet(Condition.MISSING, "create a topology there")
            return
        objection = objection_to(found, self._known)
        # Before the start has returned nobody uses the copy: of two equals the store is right, and
        # of two clusters it knows which one is here now.
        doubtful = objection in (Condition.CONFLICT, Condition.FOREIGN)
        if doubtful and not self._answered.is_set():
            objection = None
        if objection is not None:
            self._meet(objection, self._what_stays(objection, found))
            return
        # Without any, whoever starts is told of it by the error of the first use.
        reason = None if self._known is None else self._why_not(found)
        if reason is not None:
            self._meet(Condition.UNUSABLE, reason)
            return
        if self.condition is not None:
            _log.info("no longer: %s", self.condition.value)
            self.condition = None
        if found != self._known:
            self._adopt(found)
            self._call_subscribers(found)
            self._save_copy(found)

    def _what_stays(self, objection: Condition, found: Topology) -> str:
        if objection is Condition.FOREIGN:
            ours, theirs = self.current.cluster, found.cluster
            return f"{ours} stays in use; a process that is started anew will use {theirs}"
        epoch = self.current.epoch
        return f"epoch {epoch} stays in use until {epoch + 1} or more is there"

    def _meet(self, condition: Condition, reason: str) -> None:
        if self._closing.is_set():
            return
        self.counts[condition] += 1
        self._reason = f"{condition.value} ({reason})"
        if condition is not self.condition:
            self.condition = condition
            _log.warning("%s", self._reason)

    def _adopt(self, topology: Topology) -> None:
        self._known = self.current = topology
        self._found.set()

    def _call_subscribers(self, topology: Topology) -> None:
        with self._lock:
            subscribers = list(self._subscribers.values())
        for callback in subscribers:
            try:
                callback(topology)
            except Exception:  # noqa: BLE001 - theirs, and no reason to stop following
                _log.exception("a subscriber failed on topology epoch %d", topology.epoch)

    def _cancel(self, key: object) -> None:
        with self._lock:
            self._subscribers.pop(key, None)

    def _load_copy(self) -> None:
        try:
            copy = self._read_copy()
        except (OSError, TopologyInvalid) as error:
            _log.warning("%s cannot be used: %s", self._copy_shown(), error)
            return
        if copy is not None:
            self._adopt(copy)

    def _read_copy(self) -> Topology | None:
        data = None if self._last_good is None else read_at_most(self._last_good, MAX_BYTES)
        return None if data is None else decode(data)

    def _save_copy(self, topology: Topology) -> None:
        if self._last_good is None:
            return
        try:
            # Processes of one host share the copy, and one of them may be behind.
            if not self._copy_is_newer(topology):
                self._last_good.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(self._last_good, encode(topology), keep_access=False)
            self._copy_failed = False
        except OSError as error:
            if not self._copy_failed:
                _log.warning("%s cannot be written: %s", self._copy_shown(), error)
            self._copy_failed = True

    def _copy_is_newer(self, topology: Topology) -> bool:
        try:
            copy = self._read_copy()
        except TopologyInvalid:
            return False
        if copy is None or copy.cluster != topology.cluster:
            return False
        return copy == topology or copy.epoch > topology.epoch

    def _copy_shown(self) -> str:
        return (
            "no last-good copy" if self._last_good is None else f"last-good copy {self._last_good}"
        )


def _epoch(topology: Topology | None) -> int:
    return 0 if topology is None else topology.epoch
