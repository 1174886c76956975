"""Which shard serves a name: one function for every verb."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from cluster_layer.endpoints import Endpoint
from topology.model import Shard, Topology
from topology.planning import initial_topology


class Routes:
    """The topology in use and how to reach its shards."""

    def __init__(self, topology: Topology, endpoints: Mapping[str, Endpoint] | None = None) -> None:
        self.topology = topology
        self._endpoints = endpoints or {
            shard.id: Endpoint.from_url(shard.url) for shard in topology.shards
        }

    def shard_of(self, name: str) -> str:
        """Id of the shard that serves a channel or a group."""
        return self.topology.shard_of(name).id

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Shard id -> how to reach it, for all shards."""
        return self._endpoints


def fixed_routes(hosts: Sequence[Endpoint]) -> Routes:
    """Routes for a list of hosts in the settings; their order does not matter."""
    shards = [Shard(host.id, host.redacted) for host in hosts]
    topology = initial_topology(shards, cluster=fixed_cluster(host.id for host in hosts))
    return Routes(topology, {host.id: host for host in hosts})


def fixed_cluster(host_ids: Iterable[str]) -> str:
    """The id of the cluster that a fixed list of hosts is: a hash of the set of their ids."""
    text = "\n".join(sorted(host_ids))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
