"""How to reach one shard: every notation of a host that channels_redis knows, as one value.

redis-py is imported inside functions: reading a configuration needs its URL parser and its list of
options, nothing else here does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from ssl import CERT_NONE
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from cluster_layer.errors import ConfigError
from cluster_layer.secret_references import filled_in
from topology.model import redacted_url

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection
    from redis.connection import AbstractConnection as BlockingConnection

_NOTATIONS = (
    'a URL ("redis://host:6379/0", "rediss://...", "unix:///path"), a (host, port) pair, '
    'a dict of connection options, or a Sentinel dict {"sentinels": [(host, port)], '
    '"master_name": ...}'
)
_SECRETS = frozenset({"password", "username", "credential_provider", "ssl_password", "ssl_keyfile"})

# Accepted, because configurations have them, and replaced: deadlines, retries and the protocol are
# the layer's own business, and it has one connection where redis-py had a pool.
_OURS = frozenset(
    {
        "auto_close_connection_pool", "check_connection", "decode_responses", "encoder_class",
        "encoding", "encoding_errors", "health_check_interval", "legacy_responses",
        "maint_notifications_config", "max_connections", "parser_class", "protocol", "retry",
        "retry_on_error", "retry_on_timeout", "single_connection_client",
        "socket_connect_timeout", "socket_keepalive", "socket_timeout", "timeout",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """How to reach one shard.

    `id` is the same for every notation of one server and database and holds no secret; two
    endpoints are equal only if their options are equal too.
    """

    id: str
    scheme: str
    db: int
    _options: Mapping[str, Any] = field(hash=False)

    def __post_init__(self) -> None:
        """Let redis-py look at the options now: at the first connect it would be too late."""
        from redis.exceptions import RedisError

        try:
            self.new_connection(1.0)
        except (RedisError, TypeError, ValueError) as error:
            text = str(error)
            for name in _SECRETS & self._options.keys():
                text = text.replace(str(self._options[name]), "***")
            raise ConfigError(f"{self.redacted}: redis-py refuses the options: {text}") from None

    @classmethod
    def from_host(cls, host: object) -> Endpoint:
        """Read one entry of CONFIG hosts; ConfigError without any secret in it."""
        if isinstance(host, str):
            return cls.from_url(host)
        if isinstance(host, tuple | list):
            if len(host) != 2:
                raise _refused(f"a {type(host).__name__} of {len(host)}")
            return _from_options({"host": host[0], "port": host[1]}, "redis")
        if not isinstance(host, Mapping):
            raise _refused(f"a {type(host).__name__}")
        if not all(isinstance(key, str) for key in host):
            raise _refused("a dict with keys that are not strings")
        options = dict(host)
        if "master_name" in options or "sentinels" in options:
            return _from_sentinels(options)
        if "address" in options:
            return cls.from_url(options.pop("address"), options)
        return _from_options(options, "rediss" if _pop_ssl(options) else "redis")

    @classmethod
    def from_url(cls, url: object, options: Mapping[str, Any] | None = None) -> Endpoint:
        """Read a redis://, rediss:// or unix:// URL; what the URL says wins over `options`."""
        if not isinstance(url, str):
            raise _refused(f"an address of type {type(url).__name__}")
        scheme, parsed = _parsed_url(filled_in(url))
        merged = {**(options or {}), **parsed}
        _pop_ssl(merged)  # The scheme decides.
        return _from_options(merged, scheme)

    @property
    def redacted(self) -> str:
        """A URL for people: where the shard is, never how to log in."""
        return f"{self.scheme}://{self.id}"

    def __repr__(self) -> str:
        return f"Endpoint({self.redacted!r})"

    def new_connection(self, connect_timeout_s: float) -> AbstractConnection:
        """A connection, not yet connected: RESP2, bytes, no retries, no read timeout.

        `connect_timeout_s` bounds the socket alone; put connect(), which also logs in, under a
        deadline. With Sentinel every connect() asks for the master anew.
        """
        options = {**self._options, **_common_options(connect_timeout_s)}
        if options.keys().isdisjoint(_NAMES):
            options |= _nameless(self.scheme)
        if self.scheme in _SENTINEL_SCHEMES:
            from cluster_layer.sentinel import MasterConnection, MasterTLSConnection

            tls = self.scheme == "rediss+sentinel"
            return (MasterTLSConnection if tls else MasterConnection)(**options)
        connection: AbstractConnection = _connection_class(self.scheme)(**options)
        return connection

    def new_blocking_connection(self, connect_timeout_s: float) -> BlockingConnection:
        """The same without asyncio; `connect_timeout_s` bounds each step of connect()."""
        options = {**self._options, **_common_options(connect_timeout_s, blocking=True)}
        if self.scheme in _SENTINEL_SCHEMES:
            from cluster_layer.sentinel import BlockingMasterConnection, BlockingMasterTLSConnection

            tls = self.scheme == "rediss+sentinel"
            return (BlockingMasterTLSConnection if tls else BlockingMasterConnection)(**options)
        from redis import connection

        kind = {
            "redis": connection.Connection,
            "rediss": connection.SSLConnection,
            "unix": connection.UnixDomainSocketConnection,
        }[self.scheme]
        blocking: BlockingConnection = kind(**options)
        return blocking


_SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
# Options that say what redis-py tells servers of itself; the newest first.
_NAMES = ("driver_info", "lib_name", "lib_version")


def endpoints_of(hosts: Iterable[object]) -> tuple[Endpoint, ...]:
    """Read CONFIG hosts; ConfigError names the index of a wrong or repeated entry."""
    found: dict[str, int] = {}
    endpoints = []
    for index, host in enumerate(hosts):
        try:
            endpoint = Endpoint.from_host(host)
        except ConfigError as error:
            raise ConfigError(f"CONFIG hosts[{index}]: {error}") from None
        if endpoint.id in found:
            raise ConfigError(
                f"CONFIG hosts[{index}]: {endpoint.redacted} is also hosts[{found[endpoint.id]}]; "
                "every shard may be listed once"
            )
        found[endpoint.id] = index
        endpoints.append(endpoint)
    return tuple(endpoints)


def _parsed_url(url: str) -> tuple[str, dict[str, Any]]:
    from redis.asyncio.connection import parse_url

    try:
        parts = urlsplit(url)
        _ = parts.port  # A port that is no number raises here.
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        # The texts of these errors may quote a part of a password with an unescaped character.
        raise ConfigError(
            f"{redacted_url(url)!r} is no URL of a Redis server; write {_NOTATIONS}, "
            "and percent-encode special characters of a password"
        ) from None
    options.pop("connection_class", None)
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ConfigError(
            f"{redacted_url(url)!r}: the path {parts.path!r} is no database number such as /0"
        )
    return parts.scheme, options


def _from_options(options: dict[str, Any], scheme: str) -> Endpoint:
    if options.get("path") is not None:
        scheme = "unix"
    db = options["db"] = _natural("db", options.get("db") or 0, 0, 2**31)
    if scheme == "unix":
        path = _text("path", options.get("path"))
        place = quote(path) + (f"?db={db}" if db else "")
    else:
        options["host"] = _text("host", options.get("host", "localhost"))
        options["port"] = _natural("port", options.get("port", 6379), 1, 65535)
        place = _host_and_port(options["host"], options["port"]) + (f"/{db}" if db else "")
    return Endpoint(place, scheme, db, _known_options(options, scheme))


def _from_sentinels(options: dict[str, Any]) -> Endpoint:
    scheme = "rediss+sentinel" if _pop_ssl(options) else "redis+sentinel"
    master_name = _text("master_name", options.pop("master_name", None))
    sentinels = _sentinels(options.pop("sentinels", None))
    sentinel_options = options.pop("sentinel_kwargs", None) or {}
    if not isinstance(sentinel_options, Mapping):
        raise ConfigError("sentinel_kwargs must be a dict of connection options, as for a host")
    sentinel_options = dict(sentinel_options)
    sentinel_scheme = "rediss" if _pop_ssl(sentinel_options) else "redis"
    db = options["db"] = _natural("db", options.get("db") or 0, 0, 2**31)
    places = ",".join(sorted(_host_and_port(*sentinel) for sentinel in sentinels))
    place = f"{places}/{quote(master_name)}" + (f"/{db}" if db else "")
    known = {
        **_known_options(options, "rediss" if scheme == "rediss+sentinel" else "redis"),
        "master_name": master_name,
        "sentinels": tuple(
            Endpoint(
                _host_and_port(host, port),
                sentinel_scheme,
                0,
                {**_known_options(sentinel_options, sentinel_scheme), "host": host, "port": port},
            )
            for host, port in sentinels
        ),
    }
    return Endpoint(place, scheme, db, known)


def _sentinels(value: object) -> list[tuple[str, int]]:
    pairs = list(value) if isinstance(value, list | tuple) else []
    if not pairs or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ConfigError("sentinels must be a list of one or more (host, port) pairs")
    return [(_text("host", host), _natural("port", port, 1, 65535)) for host, port in pairs]


def _known_options(options: Mapping[str, Any], scheme: str) -> dict[str, Any]:
    """The options that redis-py takes for this scheme, without those that are ours."""
    known = _option_names(scheme)
    for name in options:
        if name not in known and name not in _OURS:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown option {name!r} for a {scheme}:// host; {hint}")
    taken = {name: value for name, value in options.items() if name not in _OURS}
    if scheme == "rediss":
        # Older redis-py accepts any certificate that the authority has signed, for whatever host.
        is_verified = taken.get("ssl_cert_reqs", "required") not in (None, "none", CERT_NONE)
        taken.setdefault("ssl_check_hostname", is_verified)
    return taken


@cache
def _option_names(scheme: str) -> tuple[str, ...]:
    names: set[str] = set()
    for base in _connection_class(scheme).__mro__:
        parameters = inspect.signature(base).parameters.values()
        names.update(
            p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty
        )
    return tuple(sorted(names - _OURS))


def _connection_class(scheme: str) -> type[AbstractConnection]:
    from redis.asyncio import connection

    return {
        "redis": connection.Connection,
        "rediss": connection.SSLConnection,
        "unix": connection.UnixDomainSocketConnection,
    }[scheme]


def _common_options(connect_timeout_s: float, *, blocking: bool = False) -> dict[str, Any]:
    from redis import asyncio, retry
    from redis.backoff import NoBackoff

    kind: Any = retry.Retry if blocking else asyncio.retry.Retry

    return {
        "protocol": 2,
        "decode_responses": False,
        "retry": kind(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "socket_timeout": connect_timeout_s if blocking else None,
        "socket_connect_timeout": connect_timeout_s,
    }


@cache
def _nameless(scheme: str) -> Mapping[str, None]:
    """Options that keep redis-py from telling its name and version to every server.

    It looks them up for each connection, which takes more than a millisecond.
    """
    known = _option_names("rediss" if scheme == "rediss+sentinel" else scheme.partition("+")[0])
    # Where there is the newest, the others are deprecated.
    names = _NAMES[:1] if _NAMES[0] in known else _NAMES[1:]
    return dict.fromkeys(name for name in names if name in known)


def _host_and_port(host: str, port: int) -> str:
    host = host.lower()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _pop_ssl(options: dict[str, Any]) -> bool:
    """Whether the options ask for TLS: ssl=True, or one of redis-py's TLS connection classes."""
    ssl = options.pop("ssl", False)
    if not isinstance(ssl, bool):
        raise ConfigError(f"ssl must be True or False, not a {type(ssl).__name__}")
    kind = options.pop("connection_class", None)
    if kind is None:
        return ssl
    if not isinstance(kind, type) or not kind.__module__.startswith("redis.asyncio."):
        raise ConfigError("connection_class must be one of redis.asyncio; use ssl=True for TLS")
    return ssl or issubclass(kind, _connection_class("rediss"))


def _natural(name: str, value: object, low: int, high: int) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool) and low <= number <= high:
        return number
    raise ConfigError(f"{name} {value!r:.60} is not allowed: an int from {low} to {high} is")


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ConfigError(f"{name} must be a non-empty string, not {value!r:.60}")


def _refused(found: str) -> ConfigError:
    return ConfigError(f"{found} is no host; write {_NOTATIONS}")
