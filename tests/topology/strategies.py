"""Random shards and topologies."""

from hypothesis import strategies as st

from topology.hashing import SLOTS
from topology.model import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    Change,
    Operator,
    Phase,
    Shard,
    ShardState,
    SlotTable,
    Topology,
)
from topology.planning import initial_topology

CLUSTER = "c0ffee0123456789"
OPERATOR = Operator("ada", "ops-1.example", 4711)

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
def topologies(draw: st.DrawFn, *, max_shards: int = 12) -> Topology:
    """Of any phase, with shards of any state that the tables allow."""
    shards = draw(shard_sets(max_size=max_shards))
    epoch = draw(st.integers(1, 2**53 - 1))
    first = initial_topology(shards, cluster=CLUSTER, epoch=epoch)
    phase = draw(st.sampled_from(Phase))
    last = first.shards[-1].id
    other = SlotTable((last,) * len(first.table.owners))
    down = Shard("spare", "redis://:secret@spare:6379", 3, draw(st.sampled_from(ShardState)))
    return Topology(
        CLUSTER,
        first.epoch,
        (down, *first.shards),
        first.table,
        phase,
        pending=other if phase is Phase.PREPARED else None,
        previous=other if phase is Phase.COMMITTED else None,
        change=draw(st.none() | changes(other, down, phase)),
        homes_since=draw(st.integers(1, epoch)),
    )


@st.composite
def changes(draw: st.DrawFn, table: SlotTable, spare: Shard, phase: Phase) -> Change:
    """Changes that end with the table and may let the spare shard come or go."""
    return Change(
        id=draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        summary=draw(st.sampled_from(["", "add shard spare", "drain «b», then remove it"])),
        operator=OPERATOR,
        started_at=draw(st.integers(0, 2**53 - 1)),
        began_from=draw(st.integers(1, 2**53 - 1)),
        table=table,
        slots=draw(st.integers(0, SLOTS)),
        step=draw(st.integers(1, SLOTS)),
        arriving=draw(st.sampled_from([(), (spare.id,)])),
        leaving=draw(st.sampled_from([(), (spare.id,)])),
        former=draw(st.sampled_from([(), (spare,)])),
        paused=draw(st.sampled_from([None, "", "an operator's wish"])),
        aborting=phase is Phase.COMMITTED and draw(st.booleans()),
    )
