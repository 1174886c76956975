"""Topology and wanted shards -> the fewest moves to exact weighted quotas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappush, heappushpop
from itertools import pairwise
from math import log

from mmh3 import hash as murmur3

from topology.errors import ChangeUnderWay, StaleEpoch, TopologyInvalid
from topology.hashing import SLOTS
from topology.model import MAX_SHARDS, Phase, Shard, ShardState, SlotTable, Topology

_NONE_HELD: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Move:
    """One slot goes from one shard to another; both are shard ids."""

    slot: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to move, and the shards afterwards; good only for the epoch that it was made from."""

    epoch: int
    shards: tuple[Shard, ...]
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        slots = {move.slot for move in self.moves}
        if len(slots) != len(self.moves):
            raise TopologyInvalid("a plan moves no slot twice")
        if not slots <= set(range(SLOTS)):
            raise TopologyInvalid(f"a plan moves slots from 0 to {SLOTS - 1} only")


def quotas(shards: Iterable[Shard], held: Mapping[str, int] = _NONE_HELD) -> dict[str, int]:
    """Slots that each shard should own: its exact share of 4,096 by weight, rounded up or down.

    Largest remainders are rounded up first (Hamilton's method), after those shards that ``held``
    (shard id -> slots owned now) says have the extra slot already: that saves moves. Shards that
    are not up get none. TopologyInvalid if no shard is up.
    """
    total = sum(Fraction(shard.weight) for shard in shards if _is_up(shard))
    if not total:
        raise TopologyInvalid("a topology needs at least one shard that is up")
    quota: dict[str, int] = {}
    rounded_up_first: list[tuple[bool, Fraction, int, str]] = []
    for shard in shards:
        exact = SLOTS * Fraction(shard.weight) / total if _is_up(shard) else Fraction(0)
        quota[shard.id] = floor = int(exact)
        if exact > floor:
            has_extra = held.get(shard.id, 0) > floor
            # The hash breaks ties: by id alone a new host early in the alphabet would shift all.
            order = (not has_extra, floor - exact, murmur3(shard.id), shard.id)
            rounded_up_first.append(order)
    rounded_up_first.sort()
    for *_, shard_id in rounded_up_first[: SLOTS - sum(quota.values())]:
        quota[shard_id] += 1
    return quota


def initial_topology(shards: Iterable[Shard], *, cluster: str, epoch: int = 1) -> Topology:
    """A topology without history: its table depends on the set of shards, not on their order.

    Weighted rendezvous hashing bounded by exact quotas, so that the tables of two similar sets are
    similar: one more host moves little more than its own share (docs/decisions/0001).
    """
    ordered = _ordered(shards)
    return Topology(cluster, epoch, ordered, SlotTable(_matched(ordered)))


def plan(topology: Topology, wanted_shards: Iterable[Shard]) -> Plan:
    """Fewest moves from the topology's table to the quotas of the wanted shards.

    A slot moves between two shards that stay only if one of them would otherwise be a whole slot
    or more from its exact share. Same input, same plan. ChangeUnderWay unless steady.
    """
    _require_steady(topology)
    wanted = _ordered(wanted_shards)
    slots_of: dict[str, list[int]] = defaultdict(list)
    for slot, owner in enumerate(topology.table.owners):
        slots_of[owner].append(slot)
    held = {shard_id: len(slots) for shard_id, slots in slots_of.items()}
    quota = quotas(wanted, held)
    given = [
        (slot, shard_id)
        for shard_id in sorted(slots_of)
        for slot in slots_of[shard_id][quota.get(shard_id, 0) :]
    ]
    targets = [
        shard_id
        for shard_id in sorted(quota)
        for _ in range(quota[shard_id] - held.get(shard_id, 0))
    ]
    moves = sorted(
        (Move(slot, source, target) for (slot, source), target in zip(given, targets, strict=True)),
        key=lambda move: move.slot,
    )
    return Plan(topology.epoch, wanted, tuple(moves))


def apply(plan: Plan, topology: Topology) -> Topology:
    """The topology after the plan, one epoch later.

    StaleEpoch if the plan was made from another epoch, TopologyInvalid if from another table.
    """
    if plan.epoch != topology.epoch:
        raise StaleEpoch(plan.epoch, topology.epoch)
    _require_steady(topology)
    owners = list(topology.table.owners)
    for move in plan.moves:
        if owners[move.slot] != move.source:
            raise TopologyInvalid(
                f"the plan moves slot {move.slot} from {move.source!r}, "
                f"but it belongs to {owners[move.slot]!r}"
            )
        owners[move.slot] = move.target
    return Topology(topology.cluster, topology.epoch + 1, plan.shards, SlotTable(tuple(owners)))


def _is_up(shard: Shard) -> bool:
    return shard.state is ShardState.UP


def _require_steady(topology: Topology) -> None:
    if topology.phase is not Phase.STEADY:
        raise ChangeUnderWay(
            f"epoch {topology.epoch} is {topology.phase.value}: finish or abort that change first"
        )


def _ordered(shards: Iterable[Shard]) -> tuple[Shard, ...]:
    ordered = tuple(sorted(shards, key=lambda shard: shard.id))
    if not 1 <= len(ordered) <= MAX_SHARDS:
        raise TopologyInvalid(f"a topology has 1 to {MAX_SHARDS} shards, not {len(ordered)}")
    for first, second in pairwise(ordered):
        if first.id == second.id:
            raise TopologyInvalid(f"two shards have the id {first.id!r}")
    return ordered


def _matched(shards: tuple[Shard, ...]) -> tuple[str, ...]:
    """Owner of each slot by deferred acceptance (Gale and Shapley, 1962).

    Each slot asks the shards, cheapest first; a shard with a full quota keeps the cheapest slots.
    Both sides rank by the same costs, so there is one stable outcome, whatever order slots ask in.
    """
    quota = quotas(shards)
    able = [shard for shard in shards if quota[shard.id]]
    costs = _costs(able)
    choices = [sorted(range(len(able)), key=row.__getitem__, reverse=True) for row in costs]
    # A heap keeps its smallest on top; of negated costs that is the dearest.
    kept: list[list[tuple[float, int]]] = [[] for _ in able]
    for asking in range(SLOTS):
        slot: int | None = asking
        while slot is not None:
            chosen = choices[slot].pop()
            offer = (-costs[slot][chosen], slot)
            if len(kept[chosen]) < quota[able[chosen].id]:
                heappush(kept[chosen], offer)
                slot = None
            else:
                slot = heappushpop(kept[chosen], offer)[1]
    owner_of = {
        slot: shard.id for shard, offers in zip(able, kept, strict=True) for _, slot in offers
    }
    return tuple(owner_of[slot] for slot in range(SLOTS))


def _costs(shards: list[Shard]) -> list[list[float]]:
    """Per slot, per shard: the lower, the better they match; -ln(uniform hash) / weight.

    Equal weights order shards by the hash alone, whatever the platform's rounding of logarithms.
    """
    seeds = [murmur3(shard.id, 0, False) for shard in shards]
    weights = [shard.weight for shard in shards]
    keys = [slot.to_bytes(2, "big") for slot in range(SLOTS)]
    return [
        [
            -log((murmur3(key, seed, False) + 1) / 2**32) / weight
            for seed, weight in zip(seeds, weights, strict=True)
        ]
        for key in keys
    ]
