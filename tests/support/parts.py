"""Parts of a layer on a real shard, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster_layer.counters import Counters
from cluster_layer.endpoints import Endpoint, endpoints_of
from cluster_layer.keys import ClusterKeys
from cluster_layer.links import Link, Links
from cluster_layer.presence import Presence
from cluster_layer.running import LinkSettings
from cluster_layer.scripts import Script
from cluster_layer.topologies import fixed_topologies

EPOCH = 1  # of every fixed list of hosts
NEVER_LATE_MS = 2**53


def run_script(
    client: Any, script: Script, cluster: ClusterKeys, keys: Sequence[bytes], *arguments: Any
) -> Any:
    """Run a script that begins with fence.lua as another program would: never late or behind."""
    named = (cluster.epoch, *keys)
    return client.eval(script.text, len(named), *named, NEVER_LATE_MS, EPOCH, *arguments)


def links_to(
    *urls: str, settings: LinkSettings, counters: Counters, presence: Presence | None = None
) -> Links:
    """The links of one loop to these shards."""
    topologies = fixed_topologies(endpoints_of(urls))
    return Links(topologies, settings, counters, presence)


def link_to(
    host: object, settings: LinkSettings, counters: Counters | None = None, shard: str = "shard"
) -> Link:
    """A link of its own to one shard."""
    endpoint = Endpoint.from_host(host)
    return Link(shard, endpoint, settings, counters or Counters(), fixed_topologies([endpoint]))


def presence(process_id: str = "1") -> Presence:
    return Presence(process_id, "test", epoch=lambda: EPOCH, unreachable=dict)
