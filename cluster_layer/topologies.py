"""The newest topology that this process has met, from whichever side it came."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from cluster_layer.endpoints import Endpoint
from cluster_layer.errors import ConfigError
from cluster_layer.routing import Routes, endpoint_of, fixed_topology
from topology.codec import decode
from topology.errors import TopologyInvalid
from topology.model import Shard, Topology

logger = logging.getLogger("cluster_layer")


class Topologies:
    """Holds the newest routes; a store and every shard may offer another topology. Thread-safe.

    `routes` is a plain attribute: whoever needs two answers to agree reads it once.
    """

    def __init__(
        self, topology: Topology, endpoint_for: Callable[[Shard], Endpoint] = endpoint_of
    ) -> None:
        """ConfigError if a shard's URL can't be used."""
        self._endpoint_for = endpoint_for
        self._lock = threading.Lock()
        self._followers: list[Callable[[], None]] = []
        self._refused = 0  # the highest epoch that could not be used, told once
        self.routes = Routes(topology, endpoint_for)

    @property
    def topology(self) -> Topology:
        return self.routes.topology

    def follow(self, follower: Callable[[], None]) -> None:
        """Call it whenever there are newer routes, from the thread that brought them."""
        with self._lock:
            self._followers.append(follower)

    def offer(self, topology: Topology) -> bool:
        """Use a topology if it is newer; False: it is not, or it can't be used."""
        with self._lock:
            current = self.routes.topology
            if topology.cluster != current.cluster:
                self._refuse(topology, f"it is of cluster {topology.cluster}, not of ours")
                return False
            if topology.epoch <= current.epoch:
                return False
            try:
                self.routes = Routes(topology, self._endpoint_for)
            except ConfigError as error:
                self._refuse(topology, str(error))
                return False
            followers = list(self._followers)
        logger.info("topology: epoch %d, %s", topology.epoch, topology.phase.value)
        for follower in followers:
            follower()
        return True

    def offer_encoded(self, data: bytes) -> bool:
        """`offer` what a shard keeps; False also if these bytes are no topology."""
        try:
            return self.offer(decode(data))
        except TopologyInvalid as error:
            logger.warning("a shard keeps what is no topology: %s", error)
            return False

    def _refuse(self, topology: Topology, reason: str) -> None:
        if topology.epoch > self._refused:
            self._refused = topology.epoch
            logger.error("topology epoch %d can't be used: %s", topology.epoch, reason)


def why_unusable(topology: Topology, endpoint_for: Callable[[Shard], Endpoint]) -> str | None:
    """Why this process can't use a topology; None if it can."""
    try:
        Routes(topology, endpoint_for)
    except ConfigError as error:
        return str(error)
    return None


def fixed_topologies(hosts: Sequence[Endpoint]) -> Topologies:
    """For a list of hosts in the settings; their order does not matter."""
    endpoints = {host.id: host for host in hosts}
    return Topologies(fixed_topology(hosts), lambda shard: endpoints[shard.id])
