"""How long it takes from a name to its shard, and what the alternatives would cost.

Run it as ``python benchmarks/topology_lookup.py``. Everything is measured in one run, round by
round in turn, so that the ratios hold on a busy machine too; the fastest round of each counts.
"""

from __future__ import annotations

import sys
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from timeit import timeit

from mmh3 import hash as murmur3

sys.path.insert(0, str(Path(__file__).parents[1]))

from topology.hashing import SLOTS, slot_of
from topology.model import Shard, Topology
from topology.planning import initial_topology, plan, table_after

BAR_NS = 150
SHARDS = 16
POINTS_PER_SHARD = 160  # ketama's number
ROUNDS, CALLS = 25, 20_000
CLUSTER = "0" * 16
NAME = "chat.room-1234"
DIRECT = "specific.3f2b9c1d7a5e4f60!kZpQvXwLmN"

Lookup = Callable[[str], str]


def hosts(count: int) -> list[Shard]:
    return [Shard(f"10.0.0.{i}:6379", f"redis://10.0.0.{i}:6379") for i in range(count)]


def ketama(ids: list[str]) -> Lookup:
    """A ring of points, as memcached clients use it."""
    points = sorted(
        (murmur3(f"{i}-{n}", 0, False), i) for i in ids for n in range(POINTS_PER_SHARD)
    )
    keys, owners = [key for key, _ in points], [owner for _, owner in points]
    return lambda name: owners[bisect(keys, murmur3(name, 0, False)) % len(owners)]


def rendezvous(ids: list[str]) -> Lookup:
    """The shard with the highest hash of name and shard."""
    seeds = [(murmur3(shard_id, 0, False), shard_id) for shard_id in ids]
    return lambda name: max((murmur3(name, seed, False), i) for seed, i in seeds)[1]


def moved(first: Lookup, second: Lookup) -> float:
    names = [f"room-{i}" for i in range(20_000)]
    return sum(first(name) != second(name) for name in names) / len(names)


def spread(lookup: Lookup) -> float:
    """Share of the busiest shard against the mean, over many names."""
    counts: dict[str, int] = {}
    for i in range(40_000):
        shard_id = lookup(f"room-{i}")
        counts[shard_id] = counts.get(shard_id, 0) + 1
    return max(counts.values()) * len(counts) / 40_000


def table_lookup(topology: Topology) -> Lookup:
    return lambda name: topology.shard_of(name).id


def fastest_ns(lookups: dict[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(lookups, float("inf"))
    for _ in range(ROUNDS):
        for name, call in lookups.items():
            best[name] = min(best[name], timeit(call, number=CALLS) / CALLS * 1e9)
    return best


def main() -> int:
    many, eight, nine = hosts(SHARDS), hosts(8), hosts(9)
    topology = initial_topology(many, cluster=CLUSTER)
    assert {topology.shard_of(f"room-{i}").id for i in range(2000)} == {s.id for s in many}
    ring, highest = (make([s.id for s in many]) for make in (ketama, rendezvous))
    ns = fastest_ns(
        {
            "an empty call": lambda: None,
            "slot_of(name)": lambda: slot_of(NAME),
            "slot table, name": lambda: topology.shard_of(NAME),
            "slot table, process-specific": lambda: topology.shard_of(DIRECT),
            "slot table, slot": lambda: topology.owner_of(77),
            "ketama ring": lambda: ring(NAME),
            "rendezvous": lambda: highest(NAME),
        }
    )
    empty, table = ns.pop("an empty call"), "slot table, name"
    print(f"name -> shard, {SHARDS} shards; the loop's own {empty:.0f} ns are taken off")
    for name, value in ns.items():
        ratio = (value - empty) / (ns[table] - empty)
        print(f"  {name:30} {value - empty:7.0f} ns  {ratio:5.1f} x")
    first = initial_topology(eight, cluster=CLUSTER)
    planned = replace(first, shards=tuple(nine), table=table_after(plan(first, nine), first))
    print(f"8 -> 9 shards, slots moved (ideal {1 / 9:.1%}); busiest of 9 against the mean, names")
    rows = {
        "slot table, planned": (table_lookup(first), table_lookup(planned)),
        "slot table, static lists": (
            table_lookup(first),
            table_lookup(initial_topology(nine, cluster=CLUSTER)),
        ),
        "ketama ring": tuple(ketama([s.id for s in x]) for x in (eight, nine)),
        "rendezvous": tuple(rendezvous([s.id for s in x]) for x in (eight, nine)),
    }
    for name, (before, after) in rows.items():
        print(f"  {name:30} {moved(before, after):6.1%}    {spread(after):.3f}")
    slots = sorted(planned.table.counts().values())
    print(f"  slots of the planned table: {slots[0]} to {slots[-1]}, exact {SLOTS / 9:.1f}")
    took = ns[table] - empty
    print(f"bar: {BAR_NS} ns, measured: {took:.0f} ns: {'held' if took <= BAR_NS else 'MISSED'}")
    return 0 if took <= BAR_NS else 1


if __name__ == "__main__":
    sys.exit(main())
