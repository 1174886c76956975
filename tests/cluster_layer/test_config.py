"""CONFIG: what is understood, and what is said about mistakes."""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_layer.config import (
    DEFAULT_MESSAGE_SIZE_LIMIT,
    Config,
    TopologySource,
    default_topology_cache,
)
from cluster_layer.errors import ConfigError
from topology.model import Shard

SECRET = "hunter2secret"


def test_an_empty_config_has_the_defaults_of_channels_redis() -> None:
    """A site that sets nothing gets one local Redis and the usual limits."""
    config = Config.from_dict({})
    assert [host.id for host in config.hosts] == ["localhost:6379"]
    assert (config.prefix, config.expiry, config.group_expiry) == ("asgi", 60, 86_400)
    assert config.capacity == config.capacity_of("any") == 100
    assert (config.symmetric_encryption_keys, config.topology) == ((), None)
    assert (config.timeout, config.connect_timeout) == (2.0, 1.0)


def test_every_key_of_channels_redis_is_understood_as_it_stands() -> None:
    """Moving a site over changes BACKEND and nothing in CONFIG."""
    config = Config.from_dict(
        {
            "hosts": ["redis://:pw@10.0.0.1:6380/2", ("10.0.0.2", 6379), {"host": "10.0.0.3"}],
            "prefix": "site",
            "expiry": 20,
            "group_expiry": 3_600,
            "capacity": 7,
            "channel_capacity": OrderedDict({"http.*": 200, re.compile(r"^ws!.+"): 20}),
            "symmetric_encryption_keys": ["text", b"bytes"],
            "random_prefix_length": 16,
            "serializer_format": "msgpack",
        }
    )
    assert [host.id for host in config.hosts] == [
        "10.0.0.1:6380/2",
        "10.0.0.2:6379",
        "10.0.0.3:6379",
    ]
    assert (config.prefix, config.expiry, config.group_expiry) == ("site", 20, 3_600)
    assert config.symmetric_encryption_keys == (b"text", b"bytes")


@pytest.mark.parametrize(
    ("channel", "capacity"),
    [
        ("http.request", 200),
        ("http.response!abc", 10),
        ("websocket.send!abc", 20),
        ("websocket.send!", 3),
        ("other", 3),
    ],
)
def test_the_first_rule_that_matches_the_full_name_is_the_capacity(
    channel: str, capacity: int
) -> None:
    """Globs and compiled patterns are asked in the order of the dict, then the default counts."""
    rules = {
        "http.request": 200,
        "http.response!*": 10,
        "http.*": 5,
        re.compile(r"^websocket.send\!.+"): 20,
    }
    config = Config.from_dict({"capacity": 3, "channel_capacity": rules})
    assert config.capacity_of(channel) == capacity
    assert config.capacity_of(channel) == capacity


def test_remembered_capacities_are_bounded() -> None:
    """A server with new channel names all day does not grow by them."""
    config = Config.from_dict({"channel_capacity": {"a*": 1}})
    for number in range(10_000):
        config.capacity_of(f"specific.x!{number}")
    assert config.capacity_of.cache_info().currsize <= 4096  # type: ignore[attr-defined]


def test_the_default_size_limit_carries_a_megabyte_of_json() -> None:
    """The worst growth from JSON to msgpack, short floats, still fits."""
    assert DEFAULT_MESSAGE_SIZE_LIMIT * len("0.5,") >= 1_048_576 * 9
    assert Config.from_dict({}).message_size_limit == DEFAULT_MESSAGE_SIZE_LIMIT


def test_a_topology_is_a_url_or_a_dict_with_options() -> None:
    """Options beside the URL go to the store as they are."""
    plain = Config.from_dict({"topology": "file:///etc/topology.json"})
    assert plain.topology == TopologySource("file:///etc/topology.json", {})
    assert plain.hosts == ()
    full = Config.from_dict({"topology": {"url": "zookeeper://zk:2181/site", "session_timeout": 5}})
    assert full.topology == TopologySource("zookeeper://zk:2181/site", {"session_timeout": 5})


def test_an_address_is_another_way_to_a_shard() -> None:
    """In any notation of hosts; the other shards are reached by the topology's URLs."""
    config = Config.from_dict({"topology": "memory://x", "addresses": {"a": ("near", 7000)}})
    shards = [Shard("a", "redis://far:6379"), Shard("b", "redis://far:6380")]
    assert [config.endpoint_for(shard).id for shard in shards] == ["near:7000", "far:6380"]


def test_the_last_good_copy_is_one_file_per_topology_and_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default path depends on the topology, never on its password, and can be turned off."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one = default_topology_cache("zookeeper://u:one@zk:2181/site")
    assert one is not None
    assert one.is_relative_to(tmp_path)
    assert one == default_topology_cache("zookeeper://u:two@zk:2181/site")
    assert one != default_topology_cache("zookeeper://u:one@zk:2181/other")
    url = "zookeeper://zk:2181/site"
    assert Config.from_dict({"topology": url}).topology_cache == default_topology_cache(url)
    for off in (None, False):
        config = Config.from_dict({"topology": url, "topology_cache": off})
        assert config.topology_cache is None
    assert Config.from_dict(
        {"topology": url, "topology_cache": "/var/lib/site/topology.json"}
    ).topology_cache == Path("/var/lib/site/topology.json")


def test_a_file_is_its_own_last_good_copy() -> None:
    """Only a store on the network needs one."""
    assert default_topology_cache("file:///etc/topology.json") is None
    assert default_topology_cache("memory://test") is None


def _with_host(**options: Any) -> dict[str, Any]:
    return {"hosts": [{"host": "h", **options}]}


BAD: list[tuple[dict[Any, Any], str]] = [
    # Keys that nobody knows.
    ({"host": ["redis://h"]}, "unknown key 'host'; did you mean 'hosts'"),
    ({"capasity": 3}, "did you mean 'capacity'"),
    ({"on_disconnect": "x"}, "unknown key 'on_disconnect'; known are addresses, capacity"),
    ({"password": SECRET}, "unknown key 'password'"),
    ({17: 1}, "unknown key 17"),
    # hosts
    ({"hosts": f"redis://:{SECRET}@h"}, "hosts: 'redis://:***@h' is not allowed; a list is"),
    ({"hosts": b"redis://h"}, "hosts: a bytes is not allowed; a list is"),
    ({"hosts": {"host": "h"}}, "hosts: a dict is not allowed; a list of hosts is"),
    ({"hosts": 6379}, "hosts: 6379 is not allowed"),
    ({"hosts": [6379]}, "hosts[0]: a int is no host"),
    ({"hosts": [None]}, "hosts[0]: a NoneType is no host"),
    ({"hosts": ["h:6379"]}, "hosts[0]: 'h:6379' is no URL of a Redis server"),
    ({"hosts": [f"http://u:{SECRET}@h"]}, "'http://u:***@h' is no URL of a Redis server"),
    ({"hosts": [f"redis://:{SECRET}/x@h:6379"]}, "percent-encode"),
    ({"hosts": [f"redis://u:{SECRET}@h:port"]}, "percent-encode"),
    ({"hosts": ["redis://h:6379/zero"]}, "'/zero' is no database number"),
    ({"hosts": [f"redis://h?pasword={SECRET}"]}, "did you mean 'password'"),
    ({"hosts": [("h",)]}, "hosts[0]: a tuple of 1 is no host"),
    ({"hosts": [("h", 0)]}, "port 0 is not allowed: an int from 1 to 65535 is"),
    ({"hosts": [("h", 65536)]}, "port 65536"),
    ({"hosts": [("h", "http")]}, "port 'http'"),
    ({"hosts": [("h", True)]}, "port True"),
    ({"hosts": [("", 6379)]}, "host must be a non-empty string"),
    ({"hosts": [{1: 2}]}, "a dict with keys that are not strings"),
    (_with_host(db=-1), "db -1 is not allowed"),
    (_with_host(db="one"), "db 'one'"),
    (
        _with_host(pasword=SECRET),
        "unknown option 'pasword' for a redis:// host; did you mean 'passw",
    ),
    (_with_host(ssl="yes"), "ssl must be True or False"),
    (_with_host(connection_class=dict), "connection_class must be one of redis.asyncio"),
    (_with_host(ssl_ca_certs="ca.pem"), "unknown option 'ssl_ca_certs' for a redis://"),
    (_with_host(ssl=True, ssl_cert_reqs="perhaps"), "redis-py refuses the options"),
    ({"hosts": [{"address": 17}]}, "an address of type int"),
    ({"hosts": [{"path": 17}]}, "path must be a non-empty string"),
    ({"hosts": [{"master_name": "m"}]}, "sentinels must be a list"),
    ({"hosts": [{"sentinels": [("s", 26379)]}]}, "master_name must be a non-empty string"),
    ({"hosts": [{"sentinels": ["s:26379"], "master_name": "m"}]}, "(host, port) pairs"),
    ({"hosts": ["redis://h", ("H", 6379)]}, "hosts[1]: redis://h:6379 is also hosts[0]"),
    ({"hosts": ["redis://h"], "topology": "memory://x"}, "hosts and topology exclude each other"),
    # topology
    ({"topology": ""}, "topology: '' is not allowed"),
    ({"topology": "topology.json"}, "topology: 'topology.json' is not allowed; a store's URL"),
    ({"topology": f"u:{SECRET}@zk:2181/site"}, "topology: '***' is not allowed"),
    ({"topology": 17}, "topology: 17 is not allowed"),
    ({"topology": {"session_timeout": 5}}, "topology: None is not allowed"),
    ({"topology": {"url": "memory://x", 5: 5}}, "option names are strings"),
    ({"topology_cache": True}, "topology_cache: True is not allowed"),
    ({"topology_cache": ""}, "topology_cache: '' is not allowed"),
    ({"addresses": {"a": "redis://h"}}, "addresses: a dict is not allowed; it needs a topology"),
    ({"topology": "memory://x", "addresses": ["redis://h"]}, "addresses: a list is not allowed"),
    ({"topology": "memory://x", "addresses": {5: "redis://h"}}, "addresses: a dict is not allowed"),
    (
        {"topology": "memory://x", "addresses": {"a": f"redis://u:{SECRET}@h:port"}},
        "CONFIG addresses['a']: 'redis://u:***@h:port' is no URL",
    ),
    # Numbers
    ({"expiry": 0}, "expiry: 0 is not allowed; a number of seconds from 0.001 to"),
    ({"expiry": -1}, "expiry: -1"),
    ({"expiry": float("nan")}, "expiry: nan"),
    ({"expiry": float("inf")}, "expiry: inf"),
    ({"expiry": "60"}, "expiry: '60'"),
    ({"expiry": True}, "expiry: True"),
    ({"expiry": None}, "expiry: None"),
    ({"expiry": 10**10_000}, "expiry: an int of 33220 bits"),
    ({"group_expiry": 0}, "group_expiry: 0"),
    ({"group_expiry": [60]}, "group_expiry: a list"),
    ({"capacity": 0}, "capacity: 0 is not allowed; an int from 1"),
    ({"capacity": 1.5}, "capacity: 1.5"),
    ({"capacity": True}, "capacity: True"),
    (
        {"message_size_limit": 999_999},
        "message_size_limit: 999999 is not allowed; an int from 1,000",
    ),
    ({"message_size_limit": 10**9}, "message_size_limit: 1000000000"),
    ({"timeout": 0}, "timeout: 0"),
    ({"connect_timeout": -0.5}, "connect_timeout: -0.5"),
    # Text and the rest
    ({"prefix": 5}, "prefix: 5 is not allowed; a str"),
    ({"prefix": b"asgi"}, "prefix: a bytes"),
    ({"prefix": "a\nb"}, "prefix: 'a\\nb'"),
    ({"prefix": "\ud800"}, "prefix: '\\ud800'"),
    ({"prefix": "x" * 257}, "prefix: 'xxx"),
    ({"channel_capacity": [("a", 1)]}, "channel_capacity: a list is not allowed; a dict"),
    ({"channel_capacity": {b"a": 1}}, "channel_capacity: a bytes is not allowed; keys"),
    ({"channel_capacity": {re.compile(b"a"): 1}}, "channel_capacity: a Pattern"),
    ({"channel_capacity": {"a*": 0}}, "channel_capacity['a*']: 0 is not allowed"),
    ({"channel_capacity": {re.compile("a.+"): "5"}}, "channel_capacity['a.+']: '5'"),
    ({"symmetric_encryption_keys": SECRET}, "symmetric_encryption_keys: a str; a list"),
    ({"symmetric_encryption_keys": [""]}, "symmetric_encryption_keys[0]: an empty key"),
    ({"symmetric_encryption_keys": [SECRET, 5]}, "symmetric_encryption_keys[1]: a int"),
    ({"random_prefix_length": "12"}, "random_prefix_length: '12'"),
    ({"serializer_format": "json"}, "serializer_format: 'json' is not allowed; only 'msgpack' is"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message for _, message in BAD])
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(
    config: dict[str, Any], message: str
) -> None:
    """ConfigError at construction, readable, without any secret."""
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("CONFIG ")
    assert SECRET not in "".join(_texts(caught.value))


def _texts(error: BaseException | None) -> Iterator[str]:
    """What a traceback prints of the error and of those before it, without our source lines."""
    while error is not None:
        yield repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_passwords_are_in_no_repr() -> None:
    """Logging a configuration gives nothing away."""
    config = Config.from_dict(
        {
            "hosts": [
                f"redis://user:{SECRET}@a:6379/1?password={SECRET}",
                {"host": "b", "password": SECRET, "username": SECRET},
                {"address": "redis://c", "password": SECRET},
                {
                    "sentinels": [("s", 26379)],
                    "master_name": "m",
                    "sentinel_kwargs": {"password": SECRET},
                    "password": SECRET,
                },
            ],
            "symmetric_encryption_keys": [SECRET],
        }
    )
    assert SECRET not in repr(config)
    assert SECRET not in "".join(f"{host!r}{host}{host.id}{host.redacted}" for host in config.hosts)
    source = Config.from_dict(
        {"topology": {"url": f"zookeeper://u:{SECRET}@zk:2181/s", "digest": SECRET}}
    )
    assert SECRET not in repr(source)


def told(_gap: object) -> None:
    """A hook that settings can name by its dotted path."""


async def told_later(_gap: object) -> None:
    """One that nobody would wait for."""


def test_a_hook_is_a_function_or_its_dotted_path() -> None:
    """Settings that are data can name it, too."""
    assert Config.from_dict({}).on_gap is None
    assert Config.from_dict({"on_gap": told}).on_gap is told
    assert Config.from_dict({"on_gap": "json.dumps"}).on_gap is json.dumps


@pytest.mark.parametrize("hook", [told_later, 5, "", "told", "json.dumpz", "no.such.module"])
def test_what_can_t_be_called_at_once_is_no_hook(hook: object) -> None:
    """A mistake shows when the layer is made, not with the first gap."""
    with pytest.raises(ConfigError, match="on_gap"):
        Config.from_dict({"on_gap": hook})


@pytest.mark.parametrize("value", [None, 0, "yes"])
def test_confirm_is_a_flag(value: object) -> None:
    """Nothing else is taken for one."""
    assert Config.from_dict({}).confirm is True
    assert Config.from_dict({"confirm": False}).confirm is False
    with pytest.raises(ConfigError, match="confirm"):
        Config.from_dict({"confirm": value})
