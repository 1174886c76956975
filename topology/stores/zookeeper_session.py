"""Sessions with ZooKeeper: connecting, bounded requests, and whose fault it was.

What kazoo does differently by default and must not here: it waits up to an hour between attempts
to connect; it keeps its last transaction id, so that a server restored from a backup refuses it for
ever; it queues calls while it is disconnected; it logs credentials at level DEBUG.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    OperationTimeoutError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE

from topology.errors import StoreUnavailable
from topology.ports import StoreServer
from topology.stores.options import ZooKeeperOptions
from topology.stores.sockets import open_socket
from topology.stores.zookeeper_servers import look_at_servers

_log = logging.getLogger(__name__)
# One line per attempt to connect, and requests with credentials, are nobody's log; states are ours.
_kazoo_log = _log.getChild("kazoo")
_kazoo_log.setLevel(logging.CRITICAL)

_LOST = (ConnectionLoss, SessionExpiredError, ConnectionClosedError, OperationTimeoutError)
_ENDED = (KeeperState.AUTH_FAILED, KeeperState.CLOSED)
_REFUSALS = (NoAuthError, AuthFailedError)

# Together they bound how long after ZooKeeper's return we are still without it.
_ATTEMPT_S = 2.0
_RETRY_DELAY_S = 0.6  # kazoo adds up to 40 % of jitter
_END_S = 2.0
_CLOSED_CHECK_S = 0.1

#: What a request sends: given the client, its answer to come.
Send = Callable[[KazooClient], Any]


class _Handler(SequentialThreadingHandler):
    """kazoo's threads with our sockets.

    kazoo's own TLS sockets trust the system's authorities beside the given one, leak when a
    handshake fails, and are not looked at again while TLS holds a whole answer in its buffer.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._context = context
        #: Why the latest attempt to connect failed; None after one that succeeded.
        self.last_error: OSError | None = None
        self.attempted = False

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, **_kazoo: object
    ) -> socket.socket:
        self.attempted = True
        try:
            opened = open_socket(address, hostname or address[0], _ATTEMPT_S, self._context)
        except OSError as error:
            self.last_error = error
            raise
        self.last_error = None
        return opened

    def select(
        self, readable: list[Any], writable: list[Any], broken: list[Any], limit_s: float
    ) -> Any:
        buffered = [s for s in readable if isinstance(s, ssl.SSLSocket) and s.pending()]
        if buffered:
            return buffered, [], []
        if len(readable) == 1:
            # The rest of an answer, or of the greeting: kazoo would wait for a session timeout.
            limit_s = min(limit_s, _ATTEMPT_S)
        return super().select(readable, writable, broken, limit_s)


class Session:
    """One kazoo client, from its start to its end."""

    def __init__(
        self, hosts: str, options: ZooKeeperOptions, on_connected: Callable[[Session], None]
    ) -> None:
        self.pid = os.getpid()
        self.handler = _Handler(options.tls_context)
        self.client = KazooClient(
            hosts=hosts,
            timeout=options.session_timeout_s,
            handler=self.handler,
            auth_data=[("digest", options.digest)] if options.digest else None,
            sasl_options=dict(options.sasl) if options.sasl else None,
            connection_retry=KazooRetry(max_tries=-1, delay=0.1, max_delay=_RETRY_DELAY_S),
            logger=_kazoo_log,
        )
        self.rejected = False  # the credentials were: kazoo does not try again after that
        self._on_connected = on_connected
        self.client.add_listener(self._on_state)
        self.live: Event = self.client.start_async()

    @property
    def ended(self) -> bool:
        """Whether kazoo has given up for good; before its first attempt it looks the same."""
        return self.handler.attempted and self.client.client_state in _ENDED

    def end(self) -> None:
        """Bounded: kazoo's own stop waits for an attempt to connect that may be under way."""
        ending = Thread(target=self._stop, name="topology-zookeeper-end", daemon=True)
        ending.start()
        ending.join(_END_S)

    def _stop(self) -> None:
        try:
            self.client.stop()
            self.client.close()
        except (KazooException, OSError) as error:
            _log.warning("a ZooKeeper session did not end cleanly: %r", error)

    def _on_state(self, state: str) -> None:
        # Called in kazoo's connection thread: nothing here may wait.
        if state == KazooState.CONNECTED:
            self._on_connected(self)
            return
        self.rejected |= self.client.client_state == KeeperState.AUTH_FAILED
        # Else a server whose data were lost or restored refuses us: it has seen less than we.
        self.client.last_zxid = 0


class Sessions:
    """One session at a time, begun when it is first needed; healed, also when it was lost.

    ``expected`` errors of ZooKeeper are passed on; all others become StoreUnavailable.
    """

    def __init__(
        self,
        hosts: str,
        path: str,
        options: ZooKeeperOptions,
        on_connected: Callable[[Session], None],
    ) -> None:
        self.acl: Final = CREATOR_ALL_ACL if options.authenticated else OPEN_ACL_UNSAFE
        self._hosts = hosts
        self._path = path
        self._options = options
        self._on_connected = on_connected
        self._lock = Lock()  # guards the session's making
        self.current: Session | None = None
        self._closed = False

    def deadline(self) -> float:
        return time.monotonic() + self._options.timeout_s

    def ask(self, send: Send, deadline: float, *expected: type[Exception]) -> Any:
        """The answer to a request that changes nothing; sent again if its answer was lost."""
        while True:
            session = self._connected(deadline)
            try:
                return _answer(send(session.client), deadline)
            except expected:
                raise
            except _LOST:
                continue
            except (KazooException, KazooTimeoutError) as error:
                raise self._failed(error, definite=True) from error

    def tell(self, send: Send, deadline: float, *expected: type[Exception]) -> Any:
        """Sent once: a lost answer leaves open whether it was executed."""
        client = self._connected(deadline).client
        try:
            return _answer(send(client), deadline)
        except expected:
            raise
        except (KazooException, KazooTimeoutError) as error:
            raise self._failed(error, definite=isinstance(error, _REFUSALS)) from error

    def open(self) -> Session:
        """The session, begun if there is none; it may not be connected yet."""
        with self._lock:
            self._require_open()
            if self.current is None:
                self.current = Session(self._hosts, self._options, self._on_connected)
            elif self.current.pid != os.getpid():
                raise StoreUnavailable(f"{self} was used before a fork: open a store after it")
            return self.current

    def look_at_servers(self) -> Sequence[StoreServer]:
        """How each server is, without the session's help."""
        with self._lock:
            self._require_open()
        limit_s = min(_ATTEMPT_S, self._options.timeout_s)
        return look_at_servers(self._hosts, self._options.tls_context, limit_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            session, self.current = self.current, None
        if session is not None and session.pid == os.getpid():
            session.end()

    def __str__(self) -> str:
        return f"ZooKeeperStore({self._hosts!r}, {self._path!r})"

    def _connected(self, deadline: float) -> Session:
        session = self.open()
        while (remaining_s := deadline - time.monotonic()) > 0:
            if session.live.wait(min(remaining_s, _CLOSED_CHECK_S)):
                return session
            if session.ended:
                self._retire(session)
                if session.rejected:
                    raise self._failed(AuthFailedError(), definite=True)
            session = self.open()  # refuses when the store was closed meanwhile
        reason = session.handler.last_error or "no connection"
        raise StoreUnavailable(
            f"ZooKeeper at {self._hosts} did not answer within {self._options.timeout_s:g} s: "
            f"{reason}"
        )

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self} is closed")

    def _retire(self, session: Session) -> None:
        """The next call begins a new session."""
        with self._lock:
            if self.current is session:
                self.current = None
        session.end()

    def _failed(self, error: Exception, *, definite: bool) -> StoreUnavailable:
        remedy = " (check the options 'digest' and 'sasl')" if isinstance(error, _REFUSALS) else ""
        return StoreUnavailable(
            f"ZooKeeper at {self._hosts}, path {self._path}: {error!r}{remedy}", definite=definite
        )


def _answer(request: Any, deadline: float) -> Any:
    return request.get(timeout=max(0.001, deadline - time.monotonic()))
