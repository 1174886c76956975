"""Django system checks: mistakes in CHANNEL_LAYERS, and with ``check --deploy`` the shards.

| id | |
|---|---|
| cluster_layer.E001 | the CONFIG of a layer is wrong |
| cluster_layer.W001 | the app is installed, and no layer uses it |
| cluster_layer.W002 | resilience mode is on |
| cluster_layer.W003 | the layer's messages go over the network in clear |
| cluster_layer.W010 | the store of the topology can't be read |
| cluster_layer.W011 | a shard can't be used |
| cluster_layer.W012 | a shard is older than is supported |
| cluster_layer.W013 | a shard writes to disk |
| cluster_layer.W014 | a shard may evict keys |

The first four only look at the settings. The others open connections, so they run with
``manage.py check --deploy``, and each shard has CONFIG connect_timeout and timeout.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from cluster_layer.config import Config
from cluster_layer.connection import Connection
from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ConfigError
from cluster_layer.keys import parse_info
from cluster_layer.program import of_site
from cluster_layer.session import CommandRefused
from topology.errors import ClusterError
from topology.model import ShardState, Topology
from topology.stores import open_store

OLDEST: Final = (6, 2)
TAG: Final = "channels"


def register_all() -> None:
    """Tell Django of the checks."""
    register(check_settings, TAG)
    register(check_shards, TAG, deploy=True)


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """What can be said without a connection."""
    layers = dict(_our_layers())
    if not layers:
        hint = 'set CHANNEL_LAYERS["default"]["BACKEND"] = "cluster_layer.ClusterChannelLayer"'
        text = "cluster_layer is installed, but no entry of CHANNEL_LAYERS uses it"
        return [Warning(text, hint=hint, id="cluster_layer.W001")]
    found: list[CheckMessage] = []
    for alias, given in layers.items():
        try:
            config = Config.from_dict(given)
        except ConfigError as error:
            hint = "README.md of cluster-layer, Settings, has all keys and what they mean"
            found.append(Error(f"{_where(alias)}: {error}", hint=hint, id="cluster_layer.E001"))
        else:
            found += _about(alias, config)
    return found


def check_shards(**_kwargs: Any) -> list[CheckMessage]:
    """Whether the shards of each layer can be used, and are set up for it."""
    found: list[CheckMessage] = []
    for alias, given in _our_layers():
        try:
            config = Config.from_dict(given)
        except ConfigError:
            continue  # check_settings tells
        try:
            endpoints = _endpoints(alias, config)
        except ClusterError as error:
            hint = (
                "a process with a copy of the last good topology starts all the same, a new host "
                "does not: make the store reachable, or see CONFIG topology"
            )
            text = f"{_where(alias)}: the topology can't be read: {error}"
            found.append(Warning(text, hint=hint, id="cluster_layer.W010"))
            continue
        found += _in_a_thread(_look_at_all(alias, endpoints, config))
    return found


def _our_layers() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Alias and CONFIG of each entry of CHANNEL_LAYERS whose backend is, or will be, this layer."""
    from cluster_layer.layer import ClusterChannelLayer
    from cluster_layer.migrating import TwoLayers

    layers = getattr(settings, "CHANNEL_LAYERS", {})
    for alias, entry in layers.items():
        module, _, name = str(entry.get("BACKEND", "")).rpartition(".")
        try:
            backend = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError):
            continue  # Channels itself tells of a backend that can't be imported
        if isinstance(backend, type) and issubclass(backend, ClusterChannelLayer):
            yield alias, entry.get("CONFIG", {})
        elif isinstance(backend, type) and issubclass(backend, TwoLayers):
            yield alias, entry.get("CONFIG", {}).get("new", {})


def _where(alias: str) -> str:
    return f"CHANNEL_LAYERS[{alias!r}]"


def _about(alias: str, config: Config) -> Iterator[CheckMessage]:
    if config.drop_rate:
        yield Warning(
            f"{_where(alias)}: CONFIG drop_rate is {config.drop_rate:g}: messages are dropped on "
            "purpose",
            hint="remove drop_rate, unless this site is there to be tested",
            id="cluster_layer.W002",
        )
    clear = [host.redacted for host in config.hosts if _is_in_clear(host.redacted)]
    if clear and not config.symmetric_encryption_keys:
        yield Warning(
            f"{_where(alias)}: messages go in clear to {', '.join(clear[:3])}"
            f"{' and others' if len(clear) > 3 else ''}",
            hint="use rediss:// URLs, or symmetric_encryption_keys for the messages alone",
            id="cluster_layer.W003",
        )


def _is_in_clear(url: str) -> bool:
    """Whether a URL leads to another host, without TLS."""
    scheme, _, rest = url.partition("://")
    host = rest.rpartition("@")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    return scheme == "redis" and not (host in ("localhost", "::1") or host.startswith("127."))


def _endpoints(alias: str, config: Config) -> dict[str, Endpoint]:
    """Shard id -> how to reach it. ClusterError: the topology can't be read."""
    if config.topology is None:
        return {host.id: host for host in config.hosts}
    store = open_store(config.topology.url, **config.topology.options)
    try:
        topology = store.read()
    finally:
        store.close()
    if topology is None:
        raise ConfigError(f"there is none: create one with `{of_site(alias)} init`")
    return {shard.id: config.endpoint_for(shard) for shard in _in_use(topology)}


def _in_use(topology: Topology) -> list[Any]:
    return [shard for shard in topology.shards if shard.state is not ShardState.DOWN]


async def _look_at_all(
    alias: str, endpoints: Mapping[str, Endpoint], config: Config
) -> list[CheckMessage]:
    looks = (_look_at(alias, shard, end, config) for shard, end in endpoints.items())
    return [message for found in await asyncio.gather(*looks) for message in found]


async def _look_at(
    alias: str, shard: str, endpoint: Endpoint, config: Config
) -> list[CheckMessage]:
    where = f"{_where(alias)}: shard {shard}"
    try:
        connection = await Connection.open(
            endpoint,
            shard,
            connect_timeout_s=config.connect_timeout,
            timeout_s=config.timeout,
        )
    except ClusterError as error:
        hint = (
            "is the server running, and its address, password and TLS as in the settings? "
            f"`{of_site(alias)} check` looks closer"
        )
        return [Warning(f"{where}: {error}", hint=hint, id="cluster_layer.W011")]
    try:
        info = parse_info((await connection.execute(("INFO", "server"))).decode())
        server = await _settings_of(connection)
    except ClusterError as error:
        hint = "docs/permissions.md says what its user must be allowed"
        return [Warning(f"{where}: {error}", hint=hint, id="cluster_layer.W011")]
    finally:
        connection.close()
    return list(_about_server(where, info, server))


async def _settings_of(connection: Connection) -> Mapping[str, str]:
    """Some of the server's settings; none, if its user may not ask."""
    found: dict[str, str] = {}
    for name in ("save", "appendonly", "maxmemory-policy", "maxmemory"):
        try:
            pair = await connection.execute(("CONFIG", "GET", name))
        except CommandRefused:
            return {}
        found |= {name: pair[1].decode()} if len(pair) == 2 else {}
    return found


def _about_server(
    where: str, info: Mapping[str, str], server: Mapping[str, str]
) -> Iterator[CheckMessage]:
    version = info.get("redis_version", "")
    if _numbers(version) < OLDEST:
        yield Warning(
            f"{where} is Redis {version or 'of unknown version'}",
            hint=f"{OLDEST[0]}.{OLDEST[1]} or newer is supported, or Valkey",
            id="cluster_layer.W012",
        )
    if server.get("save") or server.get("appendonly") == "yes":
        yield Warning(
            f"{where} writes to disk",
            hint='set save "" and appendonly no: what a restart brings back is never read',
            id="cluster_layer.W013",
        )
    policy = server.get("maxmemory-policy", "noeviction")
    if server.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield Warning(
            f"{where} may evict keys ({policy})",
            hint="set maxmemory-policy noeviction: a full shard then refuses, which is told",
            id="cluster_layer.W014",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _in_a_thread(work: Any) -> Sequence[CheckMessage]:
    """Run it on a loop of its own: the caller's thread may have one that runs."""
    found: list[CheckMessage] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(work)))
    thread.start()
    thread.join()
    return found
