"""Which shard serves a name."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from cluster_layer.endpoints import Endpoint, endpoints_of
from cluster_layer.routing import Routes, fixed_cluster
from cluster_layer.topologies import fixed_topologies
from topology.model import Shard
from topology.planning import initial_topology

VECTORS = Path(__file__).parents[1] / "vectors" / "topologies.json"
HOSTS = ["redis://:secret@one:6379", ("two", 6380), {"host": "three", "db": 2}]
NAMES = [f"name-{number}" for number in range(500)]


def test_the_order_of_hosts_does_not_matter() -> None:
    """Two processes with the same set of hosts agree, however their settings list them."""
    routes = fixed_topologies(endpoints_of(HOSTS)).routes
    reversed_routes = fixed_topologies(endpoints_of(HOSTS[::-1])).routes
    homes = [routes.shard_of(name) for name in NAMES]
    assert homes == [reversed_routes.shard_of(name) for name in NAMES]
    assert set(homes) == {"one:6379", "two:6380", "three:6379/2"}


def test_a_fixed_list_of_hosts_is_a_cluster() -> None:
    """Its id depends on the set of host ids alone, as docs/wire-format.md says."""
    cluster = fixed_topologies(endpoints_of(HOSTS)).routes.topology.cluster
    assert cluster == fixed_topologies(endpoints_of(HOSTS[::-1])).routes.topology.cluster
    assert cluster != fixed_topologies(endpoints_of(HOSTS[:2])).routes.topology.cluster
    golden = json.loads(VECTORS.read_text(encoding="utf-8"))["fixed"]
    assert fixed_cluster(golden["hosts"]) == golden["cluster"]
    in_order = "\n".join(sorted(golden["hosts"]))
    assert golden["cluster"] == sha256(in_order.encode()).hexdigest()[:16]


def test_a_fixed_topology_keeps_the_endpoints_and_no_password() -> None:
    """Passwords stay in the endpoint: the topology, which is shown to people, has none."""
    hosts = endpoints_of(HOSTS)
    routes = fixed_topologies(hosts).routes
    assert routes.endpoints() == {host.id: host for host in hosts}
    assert "secret" not in "".join(shard.url for shard in routes.topology.shards)


@pytest.mark.parametrize("channel", ["chat.1234!abc", "chat.1234!", "chat.1234!other"])
def test_all_channels_of_a_process_live_with_its_inbox(channel: str) -> None:
    """The home of a process-specific channel is that of the part up to and including ``!``."""
    routes = fixed_topologies(endpoints_of(HOSTS)).routes
    assert routes.shard_of(channel) == routes.shard_of("chat.1234!")


def test_a_stored_topology_says_how_to_reach_its_shards() -> None:
    """Endpoints come from the URLs of the shards, under the ids of the shards."""
    topology = initial_topology(
        [Shard("a", "redis://h:1"), Shard("b", "redis://h:2/3")], cluster="0" * 16
    )
    routes = Routes(topology)
    assert routes.endpoints() == {
        "a": Endpoint.from_url("redis://h:1"),
        "b": Endpoint.from_url("redis://h:2/3"),
    }
    assert {routes.shard_of(name) for name in NAMES} == {"a", "b"}
