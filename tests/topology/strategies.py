"""Random shards and topologies."""

from hypothesis import strategies as st

from topology.model import MAX_WEIGHT, MIN_WEIGHT, Phase, Shard, ShardState, SlotTable, Topology
from topology.planning import initial_topology

usual_weights = st.one_of(st.just(1), st.integers(1, 8), st.sampled_from([0.5, 1.5, 2.25]))
any_weights = st.one_of(usual_weights, st.floats(MIN_WEIGHT, MAX_WEIGHT))


@st.composite
def shard_sets(
    draw: st.DrawFn,
    *,
    min_size: int = 1,
    max_size: int = 256,
    weights: st.SearchStrategy[float] = any_weights,
) -> list[Shard]:
    """Shards with distinct ids, all up, in no particular order."""
    numbers = draw(st.integers(min_size, max_size))
    salt = draw(st.integers(0, 10**6))
    chosen = draw(st.lists(weights, min_size=1, max_size=8))
    return [
        Shard(f"h{salt}-{i}:6379", f"redis://h{salt}-{i}:6379", chosen[(i * i) % len(chosen)])
        for i in range(numbers)
    ]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Of any phase, with shards of any state that the tables allow."""
    shards = draw(shard_sets(max_size=12))
    first = initial_topology(shards, draw(st.integers(1, 2**53 - 1)))
    phase = draw(st.sampled_from(Phase))
    last = first.shards[-1].id
    other = SlotTable((last,) * len(first.table.owners))
    down = Shard("spare", "redis://:secret@spare:6379", 3, draw(st.sampled_from(ShardState)))
    return Topology(
        first.epoch,
        (down, *first.shards),
        first.table,
        phase,
        pending=other if phase is Phase.PREPARED else None,
        previous=other if phase is Phase.COMMITTED else None,
    )
