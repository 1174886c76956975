"""Which shard serves a name: one function for every verb."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from cluster_layer.endpoints import Endpoint
from topology.hashing import slot_of
from topology.model import Phase, Shard, ShardState, Topology
from topology.planning import initial_topology


def endpoint_of(shard: Shard) -> Endpoint:
    """How to reach a shard by its URL; ConfigError if that can't be used."""
    return Endpoint.from_url(shard.url)


class Routes:
    """One topology, and how to reach its shards; never changes."""

    __slots__ = ("_endpoints", "_table", "epoch", "topology")

    def __init__(
        self, topology: Topology, endpoint_for: Callable[[Shard], Endpoint] = endpoint_of
    ) -> None:
        """ConfigError if a shard's URL can't be used."""
        self.topology = topology
        self.epoch = topology.epoch
        self._table = topology.table.owners
        self._endpoints = {
            shard.id: endpoint_for(shard)
            for shard in topology.shards
            if shard.state is not ShardState.DOWN
        }

    def shard_of(self, name: str) -> str:
        """Id of the shard that a channel or a group is written to."""
        return self._table[slot_of(name)]

    def homes_of(self, name: str) -> tuple[str, ...]:
        """Ids of the shards at which it must be served: one, or two while its slot moves.

        The one that is written to comes first.
        """
        slot = slot_of(name)
        if self.topology.phase is not Phase.STEADY:
            other = self.topology.other_home(slot)
            if other is not None:
                return self._table[slot], other.id
        return (self._table[slot],)

    @property
    def is_prepared(self) -> bool:
        """Whether names move, and are still written to at their old homes."""
        return self.topology.phase is Phase.PREPARED

    @property
    def is_committed(self) -> bool:
        """Whether names move, and are written to at their new homes."""
        return self.topology.phase is Phase.COMMITTED

    def is_new_home(self, name: str, shard: str) -> bool:
        """Whether this home of a name is one only since the round under way began."""
        moving = len(self.homes_of(name)) > 1
        return moving and (self.shard_of(name) == shard) is self.is_committed

    def needs_tombstone(self, group: str, shard: str) -> bool:
        """Whether memberships of the group may yet be copied to this shard."""
        return self.is_prepared and self.shard_of(group) != shard

    def owners(self) -> set[str]:
        """Ids of the shards to which something is written."""
        return set(self._table)

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Shard id -> how to reach it, for all that are not down."""
        return self._endpoints


def fixed_topology(hosts: Sequence[Endpoint]) -> Topology:
    """The topology of a list of hosts in the settings; their order does not matter."""
    shards = [Shard(host.id, host.redacted) for host in hosts]
    return initial_topology(shards, cluster=fixed_cluster(host.id for host in hosts))


def fixed_cluster(host_ids: Iterable[str]) -> str:
    """The id of the cluster that a fixed list of hosts is: a hash of the set of their ids."""
    text = "\n".join(sorted(host_ids))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
