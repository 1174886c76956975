"""A ZooKeeper store's URL and options, checked before anything is opened."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, Final

from topology.errors import StoreConfigError
from topology.model import redacted_url
from topology.stores.sockets import tls_context

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_TLS_KEYS: Final = {
    "ca": str,
    "cert": str,
    "key": str,
    "key_password": str,
    "check_hostname": bool,
}
_SASL_KEYS: Final = {
    "mechanism": str,
    "username": str,
    "password": str,
    "service": str,
    "principal": str,
}


def require_known(given: Mapping[str, object], allowed: Mapping[str, object], what: str) -> None:
    """StoreConfigError for the first key that is not allowed, with the nearest one that is."""
    for key in given:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(allowed) or "none"
            raise StoreConfigError(f"{what} {key!r} is unknown{hint} (allowed: {known})")


def require_seconds(setting: str, value: object, low_s: float, high_s: float) -> None:
    """StoreConfigError unless the value is a number of seconds within the limits."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low_s <= value <= high_s:  # type: ignore[operator]
        raise StoreConfigError(
            f"the setting {setting!r} is {value!r}; allowed are {low_s:g} to {high_s:g} seconds"
        )


@dataclass(frozen=True, slots=True)
class ZooKeeperOptions:
    """How to talk to ZooKeeper; secrets are left out of the repr.

    ``digest`` is "user:password"; ``sasl`` holds mechanism, username and password (DIGEST-MD5) or
    service and principal (GSSAPI); ``tls`` holds ca, cert, key, key_password, check_hostname.
    """

    session_timeout_s: float = 10.0
    timeout_s: float = 5.0
    digest: str | None = field(default=None, repr=False)
    sasl: Mapping[str, str] | None = field(default=None, repr=False)
    tls: Mapping[str, Any] | None = field(default=None, repr=False)
    tls_context: ssl.SSLContext | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_seconds("session_timeout_s", self.session_timeout_s, 1, 600)
        require_seconds("timeout_s", self.timeout_s, 0.1, 600)
        self._check_digest()
        self._check_sasl()
        object.__setattr__(self, "tls_context", self._checked_tls())

    @property
    def authenticated(self) -> bool:
        """Whether ZooKeeper knows who we are, so that what we create can be ours alone."""
        return self.digest is not None or self.sasl is not None

    def _check_digest(self) -> None:
        if self.digest is not None and not (
            isinstance(self.digest, str) and re.fullmatch(r"[^:]+:.+", self.digest, re.DOTALL)
        ):
            raise StoreConfigError("the setting 'digest' (***) must be a string user:password")

    def _check_sasl(self) -> None:
        if self.sasl is None:
            return
        _require_typed("sasl", self.sasl, _SASL_KEYS)
        mechanism = self.sasl.get("mechanism")
        if mechanism not in ("DIGEST-MD5", "GSSAPI"):
            raise StoreConfigError(
                f"the setting sasl['mechanism'] is {mechanism!r}; allowed: 'DIGEST-MD5', 'GSSAPI'"
            )
        if mechanism == "DIGEST-MD5" and not {"username", "password"} <= self.sasl.keys():
            raise StoreConfigError("the setting 'sasl' needs 'username' and 'password'")
        if find_spec("puresasl") is None:
            raise StoreConfigError(
                "the setting 'sasl' needs the package pure-sasl: pip install pure-sasl"
            )

    def _checked_tls(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        _require_typed("tls", self.tls, _TLS_KEYS)
        if "key" in self.tls and "cert" not in self.tls:
            raise StoreConfigError("the setting tls['key'] needs tls['cert'] beside it")
        return tls_context(self.tls)


def _require_typed(setting: str, value: object, kinds: Mapping[str, type]) -> None:
    if not isinstance(value, Mapping):
        raise StoreConfigError(
            f"the setting {setting!r} must be a dict, not {type(value).__name__}"
        )
    require_known(value, kinds, f"the key of the setting {setting!r}")
    for key, entry in value.items():
        if not isinstance(entry, kinds[key]):
            raise StoreConfigError(
                f"the setting {setting}[{key!r}] must be "
                f"{kinds[key].__name__}, not {type(entry).__name__}"
            )


def parse_zookeeper_url(url: str) -> tuple[str, str]:
    """``zookeeper://h1:2181,h2/path`` -> ("h1:2181,h2:2181", "/path"); StoreConfigError."""
    hosts, slash, path = url.removeprefix("zookeeper://").partition("/")
    if "@" in url:
        raise _wrong_url(url, "credentials belong in the option 'digest' or 'sasl', not in the URL")
    if "?" in url or "#" in url:
        raise _wrong_url(url, "options are given beside the URL, not in it")
    path = slash + path
    segments = path[1:].split("/")
    if not path.isprintable() or any(segment in ("", ".", "..") for segment in segments):
        raise _wrong_url(url, "name the znode, as in zookeeper://host:2181/site/topology")
    return ",".join(_with_port(url, host) for host in hosts.split(",")), path


def _with_port(url: str, host: str) -> str:
    if not _HOST.fullmatch(host):
        raise _wrong_url(url, f"{host!r} is not host or host:port")
    port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else ""
    if port and not 1 <= int(port) <= 65535:
        raise _wrong_url(url, f"port {port} is not within 1 to 65535")
    return host if port else f"{host}:2181"


def _wrong_url(url: str, remedy: str) -> StoreConfigError:
    return StoreConfigError(f"the topology URL {redacted_url(url)!r} is wrong: {remedy}")
