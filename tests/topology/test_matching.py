"""A table without history, against its own definition."""

import json
from hashlib import shake_128
from math import log
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER, shard_sets, usual_weights
from topology.hashing import SLOTS
from topology.matching import matched
from topology.model import Shard
from topology.planning import initial_topology, quotas

VECTORS = Path(__file__).parents[1] / "vectors" / "topologies.json"


def costs_of(shard: Shard) -> list[float]:
    """Of each slot, as docs/wire-format.md says."""
    stream = shake_128(shard.id.encode()).digest(4 * SLOTS)
    numbers = [int.from_bytes(stream[4 * s : 4 * s + 4], "little") for s in range(SLOTS)]
    return [-log((number + 1) / 2**32) / shard.weight for number in numbers]


def told(shards: list[Shard]) -> list[str]:
    """Owner of each slot, by taking the cheapest pairs first.

    Where both sides rank by the same costs that is the one stable matching, too.
    """
    costs = {shard.id: costs_of(shard) for shard in shards}
    free = quotas(shards)
    pairs = sorted(
        (costs[shard.id][slot], slot, shard.id) for shard in shards for slot in range(SLOTS)
    )
    owners: dict[int, str] = {}
    for _, slot, shard_id in pairs:
        if slot not in owners and free[shard_id]:
            owners[slot] = shard_id
            free[shard_id] -= 1
    return [owners[slot] for slot in range(SLOTS)]


@settings(deadline=None, max_examples=8)
@given(shard_sets(max_size=12, weights=usual_weights))
def test_it_is_the_stable_matching(shards: list[Shard]) -> None:
    """Whatever the shards and their weights."""
    assert list(matched(shards, quotas(shards))) == told(shards)


@pytest.mark.parametrize("count", [64, 65, 200])
@pytest.mark.parametrize("weights", [(1,), (1, 2.5, 40), (1, 1e-3)])
def test_many_shards_are_matched_the_same_way(count: int, weights: tuple[float, ...]) -> None:
    """That only the cheapest are ranked at first changes nothing."""
    shards = [Shard(f"s{i}", f"redis://s{i}", weights[i % len(weights)]) for i in range(count)]
    assert list(matched(shards, quotas(shards))) == told(shards)


@settings(deadline=None, max_examples=8)
@given(st.permutations([Shard(f"s{i}", f"redis://s{i}", 1 + i % 3) for i in range(9)]))
def test_the_order_of_shards_does_not_matter(shards: list[Shard]) -> None:
    """The table depends on the set alone."""
    first = sorted(shards, key=lambda shard: shard.id)
    assert matched(shards, quotas(shards)) == matched(first, quotas(first))


def test_the_golden_table_of_a_fixed_list_holds() -> None:
    """What another language computes from a list of hosts never changes."""
    golden = json.loads(VECTORS.read_text(encoding="utf-8"))["fixed"]
    hosts = sorted(golden["hosts"])
    topology = initial_topology([Shard(host, f"redis://{host}") for host in hosts], cluster=CLUSTER)
    digits = "".join(f"{hosts.index(owner):02x}" for owner in topology.table.owners)
    assert digits == golden["table"]
