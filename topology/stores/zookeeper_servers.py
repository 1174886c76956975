"""How each server of a ZooKeeper ensemble is, asked one by one.

A server without a quorum accepts connections and serves nobody, so a session is begun, which needs
the quorum, and ended. What the server is in its ensemble it says only if `srvr` is allowed.
"""

from __future__ import annotations

import re
import ssl
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

from topology.ports import StoreServer
from topology.stores.sockets import open_socket

# Length; protocol, last transaction seen, session timeout in ms, session, password, read only.
_CONNECT: Final = struct.Struct(">iiqiqi16sb")
_CONNECT_BODY: Final = _CONNECT.size - 4
_SESSION_MS: Final = 4000
# Length; number of the request, its type.
_CLOSE: Final = struct.pack(">iii", 8, 1, -11)
_AT_ONCE: Final = 16
_ANSWER_BYTES: Final = 4096
_VERSION = re.compile(r"^Zookeeper version: ([0-9][^-, ]*)", re.MULTILINE)
_MODE = re.compile(r"^Mode: ([a-z_-]+)", re.MULTILINE)


def look_at_servers(
    hosts: str, context: ssl.SSLContext | None, limit_s: float
) -> Sequence[StoreServer]:
    """All servers of "h1:2181,h2:2181", in that order; each wait is bounded by the limit."""
    addresses = hosts.split(",")
    with ThreadPoolExecutor(min(len(addresses), _AT_ONCE)) as pool:
        return list(pool.map(lambda address: _look_at(address, context, limit_s), addresses))


def _look_at(address: str, context: ssl.SSLContext | None, limit_s: float) -> StoreServer:
    parts = urlsplit(f"//{address}")
    place = (parts.hostname or "", parts.port or 0)
    began = time.monotonic()
    try:
        _begin_and_end_session(place, context, limit_s)
    except OSError as error:
        return StoreServer(address, str(error) or type(error).__name__)
    latency_s = time.monotonic() - began
    said = _said(place, context, limit_s)
    role, version = _MODE.search(said), _VERSION.search(said)
    return StoreServer(
        address, latency_s=latency_s, role=role and role[1], version=version and version[1]
    )


def _begin_and_end_session(
    place: tuple[str, int], context: ssl.SSLContext | None, limit_s: float
) -> None:
    """OSError if the server does not serve."""
    with open_socket(place, place[0], limit_s, context) as connection:
        connection.settimeout(limit_s)
        connection.sendall(_CONNECT.pack(_CONNECT_BODY, 0, 0, _SESSION_MS, 0, 16, bytes(16), 0))
        if not connection.recv(_ANSWER_BYTES):
            raise ConnectionError("it serves nobody: it has no quorum, or refuses this client")
        connection.sendall(_CLOSE)
        connection.recv(_ANSWER_BYTES)


def _said(place: tuple[str, int], context: ssl.SSLContext | None, limit_s: float) -> str:
    """The answer to `srvr`; "" if there is none, for it may be forbidden."""
    answer = b""
    try:
        with open_socket(place, place[0], limit_s, context) as connection:
            connection.settimeout(limit_s)
            connection.sendall(b"srvr")
            while len(answer) < _ANSWER_BYTES and (more := connection.recv(_ANSWER_BYTES)):
                answer += more
    except OSError:
        return ""
    return answer.decode("ascii", "replace")
