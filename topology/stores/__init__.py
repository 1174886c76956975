"""Where topologies are kept: ZooKeeper, a file, or this process's memory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from topology.errors import StoreConfigError
from topology.model import redacted_url
from topology.ports import OperatorStore
from topology.stores.file import FileStore
from topology.stores.memory import MemoryStore
from topology.stores.options import (
    ZooKeeperOptions,
    parse_zookeeper_url,
    require_known,
    require_seconds,
)

__all__ = ["open_store"]

_FILE_OPTIONS = {"poll_s": (0.01, 60.0), "timeout_s": (0.1, 600.0)}


def open_store(url: str, **options: object) -> OperatorStore:
    """The store that the URL names; nothing is connected or started yet. StoreConfigError.

    - ``zookeeper://h1:2181,h2:2181/path``, with the options of ``ZooKeeperOptions``
    - ``file:///path.json``, with ``poll_s`` (how soon a change is seen) and ``timeout_s``
    - ``memory://name``
    """
    if not isinstance(url, str):
        raise StoreConfigError(f"the topology URL must be a string, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _OPENERS:
        raise StoreConfigError(
            f"the topology URL {redacted_url(url)!r} is unknown: "
            "use zookeeper://host:2181/path, file:///path.json or memory://name"
        )
    return _OPENERS[scheme](url, options)


def _open_memory(url: str, options: dict[str, object]) -> OperatorStore:
    require_known(options, {}, "the option of a memory:// topology")
    return MemoryStore(url.removeprefix("memory://"))


def _open_file(url: str, options: dict[str, object]) -> OperatorStore:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.name or parts.query or parts.fragment:
        raise StoreConfigError(
            f"the topology URL {redacted_url(url)!r} is wrong: "
            "give an absolute path after three slashes, as in file:///srv/site/topology.json"
        )
    require_known(options, _FILE_OPTIONS, "the option of a file:// topology")
    for name, value in options.items():
        require_seconds(name, value, *_FILE_OPTIONS[name])
    return FileStore(path, **options)  # type: ignore[arg-type]  # numbers, as just checked


def _open_zookeeper(url: str, options: dict[str, object]) -> OperatorStore:
    # Imported here: who keeps the topology elsewhere need not have kazoo loaded.
    from topology.stores.zookeeper import ZooKeeperStore

    allowed = {name for name in ZooKeeperOptions.__slots__ if name != "tls_context"}
    require_known(options, dict.fromkeys(sorted(allowed)), "the option of a zookeeper:// topology")
    hosts, path = parse_zookeeper_url(url)
    return ZooKeeperStore(hosts, path, ZooKeeperOptions(**options))  # type: ignore[arg-type]


_OPENERS = {"memory": _open_memory, "file": _open_file, "zookeeper": _open_zookeeper}
