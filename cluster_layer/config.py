"""The CONFIG of a channel layer, read once, checked completely, then never changed.

Every key of channels_redis's core layer is understood as it stands, so that moving a site over is a
change of BACKEND alone.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeGuard

from cluster_layer.endpoints import Endpoint, endpoints_of
from cluster_layer.errors import ConfigError
from cluster_layer.gaps import OnGap
from cluster_layer.metrics.hook import KNOWN, Metrics, metrics_of
from topology.model import Shard, redacted_url

# The specification wants 1 MB measured as JSON, and nothing grows more from JSON to msgpack than a
# list of numbers such as 0.5: four bytes there, nine here.
DEFAULT_MESSAGE_SIZE_LIMIT: Final = 1_048_576 * 9 // 4
MIN_MESSAGE_SIZE_LIMIT: Final = 1_000_000
# A tenth of what one Redis value can hold.
MAX_MESSAGE_SIZE_LIMIT: Final = 50_000_000
# Ten years: more is a mistake of units, and less than where a shard's clock overflows.
MAX_SECONDS: Final = 315_360_000
MAX_CAPACITY: Final = 1_000_000
MAX_PREFIX_BYTES: Final = 256
DEFAULT_HOSTS: Final = ("redis://localhost:6379",)

# Process-specific names are new for every consumer; the cache must not remember them all.
_CAPACITY_CACHE_SIZE = 4096

_IS_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*").fullmatch

Rules: TypeAlias = tuple[tuple[re.Pattern[str], int], ...]


@dataclass(frozen=True, slots=True, repr=False)
class TopologySource:
    """Where the topology is kept: a store's URL, and options for it that may be secret."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"TopologySource({redacted_url(self.url)!r}, options={sorted(self.options)})"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one layer; all times in seconds, sizes in bytes.

    Either `topology` is set or `hosts` is not empty. `topology_cache` is the file of the last good
    topology, None for none. `addresses`: shard id -> how this process reaches that shard, where the
    topology's URL is not the way. `capacity_of(channel)` takes the full name of any channel.
    """

    hosts: tuple[Endpoint, ...]
    topology: TopologySource | None
    topology_cache: Path | None
    addresses: Mapping[str, Endpoint] = field(hash=False)
    prefix: str
    expiry: float
    group_expiry: float
    capacity: int
    channel_capacity: Rules
    symmetric_encryption_keys: tuple[bytes, ...] = field(repr=False)
    message_size_limit: int
    timeout: float
    connect_timeout: float
    confirm: bool
    on_gap: OnGap | None = field(compare=False)
    gap_message: str | None
    drop_rate: float
    metrics: Metrics | None = field(compare=False)
    capacity_of: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.hosts) == (self.topology is not None):
            raise ConfigError(
                "CONFIG hosts and topology exclude each other: hosts is a fixed list of shards, "
                "topology names the store of a list that can change; keep one of them"
            )
        lookup = _capacity_lookup(self.channel_capacity, self.capacity)
        object.__setattr__(self, "capacity_of", lookup)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """Read a CONFIG; ConfigError names the key, the value (no secret) and what is allowed."""
        for key in config:
            _require_known(key)
        topology = _topology(config.get("topology"))
        hosts = _hosts(config.get("hosts"), topology is not None)
        values = {key: check(key, config.get(key, default)) for key, default, check in _SCALARS}
        for key in _WITHOUT_EFFECT:
            values.pop(key)
        return cls(
            hosts=hosts,
            topology=topology,
            topology_cache=_topology_cache(config, topology),
            addresses=addresses_from(config.get("addresses"), topology is not None),
            channel_capacity=_channel_capacity(config.get("channel_capacity")),
            symmetric_encryption_keys=_keys(config.get("symmetric_encryption_keys")),
            **values,
        )

    def endpoint_for(self, shard: Shard) -> Endpoint:
        """How this process reaches a shard of the topology. ConfigError."""
        return self.addresses.get(shard.id) or Endpoint.from_url(shard.url)

    @property
    def scope(self) -> str:
        """Whose positions these are: equal for layers that meet, different for all others."""
        hosts = " ".join(sorted(host.id for host in self.hosts))
        where = self.topology.url if self.topology is not None else hosts
        return f"{self.prefix} {where}"


def _require_known(key: object) -> None:
    if key in _KNOWN:
        return
    close = get_close_matches(str(key), _KNOWN, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_KNOWN))}"
    raise ConfigError(f"CONFIG has the unknown key {key!r:.60}; {hint}")


def _refused(key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"CONFIG {key}: {_shown(value)} is not allowed; {allowed}")


def _shown(value: object) -> str:
    """The value for an error; containers may hold secrets, so only their type is told."""
    if isinstance(value, str):
        return repr(redacted_url(value)[:80])
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an int of {value.bit_length()} bits"  # Python refuses to print very long ones.
    if value is None or isinstance(value, int | float | Path):
        return repr(value)[:80]
    return f"a {type(value).__name__}"


def _seconds(key: str, value: object) -> float:
    # The least is one millisecond, the unit that shards count in; NaN fails the comparison.
    if _is_number(value) and 0.001 <= value <= MAX_SECONDS:
        return value
    raise _refused(key, value, f"a number of seconds from 0.001 to {MAX_SECONDS:,} is")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(key: str, value: object, low: int, high: int, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise _refused(key, value, f"an int from {low:,} to {high:,} ({unit}) is")


def _capacity(key: str, value: object) -> int:
    return _whole(key, value, 1, MAX_CAPACITY, "messages")


def _size_limit(key: str, value: object) -> int:
    return _whole(key, value, MIN_MESSAGE_SIZE_LIMIT, MAX_MESSAGE_SIZE_LIMIT, "bytes")


def _prefix(key: str, value: object) -> str:
    allowed = f"a str of at most {MAX_PREFIX_BYTES} bytes without control characters is"
    if not isinstance(value, str) or (value and not value.isprintable()):
        raise _refused(key, value, allowed)
    if len(value.encode()) > MAX_PREFIX_BYTES:
        raise _refused(key, value, allowed)
    return value


def _flag(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _refused(key, value, "True or False is")


def _hook(key: str, value: object) -> OnGap | None:
    """A function, or where it is: settings that are data name it by its dotted path."""
    allowed = "a plain function that takes a Gap is, or its dotted path"
    function = value
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise _refused(key, value, f"{allowed}; it can't be imported: {error}") from error
    if function is None or (callable(function) and not iscoroutinefunction(function)):
        return function
    raise _refused(key, value, allowed)


def _rate(key: str, value: object) -> float:
    if _is_number(value) and 0 <= value < 1:
        return value
    raise _refused(
        key, value, "a number from 0 (the default) to less than 1 is: the share that is dropped"
    )


def _metrics(key: str, value: object) -> Metrics | None:
    known = ", ".join(repr(name) for name in KNOWN)
    allowed = f"{known}, or the dotted path of an object with watch() and observe() is"
    try:
        return metrics_of(value)
    except ImportError as error:
        remedy = f"{allowed}; {error}; the libraries: pip install cluster-layer[metrics]"
        raise _refused(key, value, remedy) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _refused(key, value, f"{allowed}; {error}") from error


def _message_type(key: str, value: object) -> str | None:
    """Channels makes the name of a consumer's method of it."""
    if value is None or (isinstance(value, str) and _IS_TYPE(value)):
        return value
    raise _refused(
        key, value, 'a message type such as "layer.gap" is: a consumer needs the method layer_gap'
    )


def _any_int(key: str, value: object) -> int:
    """random_prefix_length made equal messages different in a sorted set; ours are different."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _refused(key, value, "an int is; this layer needs no random prefix, remove the key")


def _serializer_format(key: str, value: object) -> str:
    if value == "msgpack":
        return "msgpack"
    raise _refused(
        key,
        value,
        "only 'msgpack' is: its binary bodies are what lets a fan-out copy without decoding",
    )


# Key, default and check of the keys that stand for themselves.
_SCALARS: Final[tuple[tuple[str, Any, Callable[[str, object], Any]], ...]] = (
    ("prefix", "asgi", _prefix),
    ("expiry", 60, _seconds),
    ("group_expiry", 86_400, _seconds),
    ("capacity", 100, _capacity),
    ("message_size_limit", DEFAULT_MESSAGE_SIZE_LIMIT, _size_limit),
    ("timeout", 2.0, _seconds),
    ("connect_timeout", 1.0, _seconds),
    ("confirm", True, _flag),
    ("on_gap", None, _hook),
    ("gap_message", None, _message_type),
    ("drop_rate", 0.0, _rate),
    ("metrics", None, _metrics),
    ("random_prefix_length", 12, _any_int),
    ("serializer_format", "msgpack", _serializer_format),
)
# channels_redis's, checked so that a mistake is seen, without a meaning here.
_WITHOUT_EFFECT: Final = ("random_prefix_length", "serializer_format")
_KNOWN: Final = frozenset(
    {setting.name for setting in fields(Config) if setting.init} | {key for key, _, _ in _SCALARS}
)


def _hosts(value: object, has_topology: bool) -> tuple[Endpoint, ...]:
    if isinstance(value, str | bytes):
        raise _refused("hosts", value, "a list is, also for one host: put it in [ ]")
    if value is not None and not isinstance(value, list | tuple):
        raise _refused("hosts", value, "a list of hosts is")
    if value or has_topology:
        return endpoints_of(value or ())
    return endpoints_of(DEFAULT_HOSTS)


def _topology(value: object) -> TopologySource | None:
    if value is None:
        return None
    allowed = (
        'a store\'s URL such as "zookeeper://host:2181/path" or "file:///path.json" is, '
        'or a dict {"url": ..., **options of the store}'
    )
    options: dict[str, Any] = {}
    url: object = value
    if isinstance(value, Mapping):
        options = dict(value)
        url = options.pop("url", None)
        if not all(isinstance(name, str) for name in options):
            raise _refused("topology", value, "option names are strings")
    if not isinstance(url, str) or not re.match(r"[a-z]+://.", url):
        raise _refused("topology", url, allowed)
    return TopologySource(url, options)


def _topology_cache(config: Mapping[str, Any], topology: TopologySource | None) -> Path | None:
    if "topology_cache" not in config:
        return None if topology is None else default_topology_cache(topology.url)
    value = config["topology_cache"]
    if value is None or value is False:
        return None
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    raise _refused("topology_cache", value, "a file's path is, or None for no copy")


def default_topology_cache(url: str) -> Path | None:
    """One file per topology and user; None for stores that are files or memory themselves."""
    if not url.startswith("zookeeper://"):
        return None
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:  # This user has no home.
        return None
    digest = hashlib.sha256(redacted_url(url).encode()).hexdigest()
    return home / "cluster-layer" / f"topology-{digest[:16]}.json"


def addresses_from(value: object, has_topology: bool = True) -> dict[str, Endpoint]:
    """CONFIG addresses, checked. ConfigError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(shard, str) for shard in value):
        raise _refused("addresses", value, "a dict of shard id to an entry as in hosts is")
    if value and not has_topology:
        raise _refused("addresses", value, "it needs a topology; hosts says how to reach them")
    found = {}
    for shard, host in value.items():
        try:
            found[shard] = Endpoint.from_host(host)
        except ConfigError as error:
            raise ConfigError(f"CONFIG addresses[{shard!r:.60}]: {error}") from None
    return found


def _channel_capacity(value: object) -> Rules:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise _refused("channel_capacity", value, "a dict of glob or compiled pattern to int is")
    return tuple((_pattern(key), _capacity_rule(key, limit)) for key, limit in value.items())


def _pattern(key: object) -> re.Pattern[str]:
    if isinstance(key, re.Pattern) and isinstance(key.pattern, str):
        return key
    if isinstance(key, str):
        return re.compile(fnmatch.translate(key))
    raise _refused("channel_capacity", key, "keys are globs (str) or compiled patterns of str")


def _capacity_rule(key: object, limit: object) -> int:
    name = key.pattern if isinstance(key, re.Pattern) else key
    return _capacity(f"channel_capacity[{name!r:.60}]", limit)


def _capacity_lookup(rules: Rules, default: int) -> Callable[[str], int]:
    if not rules:
        return lambda _channel: default

    @lru_cache(maxsize=_CAPACITY_CACHE_SIZE)
    def capacity_of(channel: str) -> int:
        return next((limit for pattern, limit in rules if pattern.match(channel)), default)

    return capacity_of


def _keys(value: object) -> tuple[bytes, ...]:
    allowed = "a list of non-empty keys (str or bytes) is, the first one encrypts"
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f"CONFIG symmetric_encryption_keys: a {type(value).__name__}; {allowed}")
    keys = [key.encode() if isinstance(key, str) else key for key in value]
    for index, key in enumerate(keys):
        if not isinstance(key, bytes) or not key:
            found = "an empty key" if key == b"" else f"a {type(key).__name__}"
            raise ConfigError(f"CONFIG symmetric_encryption_keys[{index}]: {found}; {allowed}")
    return tuple(keys)
