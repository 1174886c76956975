"""Topology and wanted shards -> the fewest moves to exact weighted quotas."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from heapq import heapify, heapreplace
from itertools import pairwise

from mmh3 import hash as murmur3

from topology.errors import ChangeUnderWay, StaleEpoch, TopologyInvalid
from topology.hashing import SLOTS
from topology.matching import matched
from topology.model import MAX_SHARDS, Phase, Shard, ShardState, SlotTable, Topology
from topology.plans import Move, Plan

_NONE_HELD: Mapping[str, int] = {}


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

    The tables of two similar sets are similar: one more host moves little more than its own share
    (``matching``, docs/decisions/0001).
    """
    ordered = _ordered(shards)
    table = SlotTable(matched(ordered, quotas(ordered)))
    return Topology(cluster, epoch, ordered, table, homes_since=epoch)


def plan(topology: Topology, wanted_shards: Iterable[Shard], summary: str = "") -> Plan:
    """Fewest moves from the topology's table to the quotas of the wanted shards.

    A slot moves between two shards that stay only if one of them would otherwise be a whole slot
    or more from its exact share. Same input, same plan. ChangeUnderWay if there is one.
    """
    require_idle(topology)
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
    return Plan(topology.cluster, topology.epoch, summary, wanted, tuple(moves))


def plan_back(topology: Topology, former: Topology, summary: str = "") -> Plan:
    """From the topology back to the table and the shards of a former one of the same cluster.

    Shards that are down now stay down; what they owned stays where it is, or goes to the others
    by weight if its shard leaves. One that was down then and lives now is drained: a plan loses
    nothing. ChangeUnderWay if there is a change.
    """
    require_idle(topology)
    if former.cluster != topology.cluster:
        raise TopologyInvalid(f"{former.cluster} is another cluster than {topology.cluster}")
    state_now = {shard.id: shard.state for shard in topology.shards}
    wanted = tuple(_brought_back(shard, state_now.get(shard.id)) for shard in former.final_shards())
    able = {shard.id for shard in wanted if shard.state is not ShardState.DOWN}
    now = topology.table.owners
    owners = [
        there if there in able else here
        for there, here in zip(former.table.owners, now, strict=True)
    ]
    table = rehomed(SlotTable(tuple(owners)), wanted)
    moves = tuple(
        Move(slot, source, target)
        for slot, (source, target) in enumerate(zip(now, table.owners, strict=True))
        if source != target
    )
    return Plan(topology.cluster, topology.epoch, summary, wanted, moves)


def _brought_back(former: Shard, state_now: ShardState | None) -> Shard:
    if state_now is ShardState.DOWN:
        return replace(former, state=ShardState.DOWN)
    if former.state is ShardState.DOWN and state_now is not None:
        return replace(former, state=ShardState.DRAINING)
    return former


def table_after(plan: Plan, topology: Topology) -> SlotTable:
    """The table that the plan leads to.

    StaleEpoch if the plan was made from another epoch, TopologyInvalid if for another cluster or
    from another table.
    """
    if plan.cluster != topology.cluster:
        raise TopologyInvalid(
            f"the plan is for cluster {plan.cluster}, this one is {topology.cluster}"
        )
    if plan.epoch != topology.epoch:
        raise StaleEpoch(plan.epoch, topology.epoch)
    owners = list(topology.table.owners)
    for move in plan.moves:
        if owners[move.slot] != move.source:
            raise TopologyInvalid(
                f"the plan moves slot {move.slot} from {move.source!r}, "
                f"but it belongs to {owners[move.slot]!r}"
            )
        owners[move.slot] = move.target
    return SlotTable(tuple(owners))


def rehomed(table: SlotTable, shards: Iterable[Shard]) -> SlotTable:
    """The table with the slots of shards that are down or gone given to the others by weight.

    No other slot moves, so that the others' shares get as close to exact as these slots allow. To
    shards that drain they go only if no other is left; TopologyInvalid if none is left at all.
    """
    able = {shard.id: shard for shard in shards if shard.state is not ShardState.DOWN}
    lost = [slot for slot, owner in enumerate(table.owners) if owner not in able]
    if not lost:
        return table
    takers = [shard for shard in able.values() if _is_up(shard)] or [
        replace(shard, state=ShardState.UP) for shard in able.values()
    ]
    held = Counter(table.owners)
    quota = quotas(takers, held)
    # The neediest first; the hash breaks ties as in `quotas`.
    needs = [(held[s.id] - quota[s.id], murmur3(s.id), s.id) for s in takers]
    heapify(needs)
    owners = list(table.owners)
    for slot in lost:
        surplus, order, shard_id = needs[0]
        owners[slot] = shard_id
        heapreplace(needs, (surplus + 1, order, shard_id))
    return SlotTable(tuple(owners))


def require_idle(topology: Topology) -> None:
    """ChangeUnderWay, which says whose change it is, unless there is none."""
    change = topology.change
    if change is not None:
        raise ChangeUnderWay(
            f"the change {change.summary!r}, begun by {change.operator}, is under way: "
            "finish or abort it first"
        )
    if topology.phase is not Phase.STEADY:
        raise ChangeUnderWay(
            f"epoch {topology.epoch} is {topology.phase.value}: finish or abort that change first"
        )


def _is_up(shard: Shard) -> bool:
    return shard.state is ShardState.UP


def _ordered(shards: Iterable[Shard]) -> tuple[Shard, ...]:
    ordered = tuple(sorted(shards, key=lambda shard: shard.id))
    if not 1 <= len(ordered) <= MAX_SHARDS:
        raise TopologyInvalid(f"a topology has 1 to {MAX_SHARDS} shards, not {len(ordered)}")
    for first, second in pairwise(ordered):
        if first.id == second.id:
            raise TopologyInvalid(f"two shards have the id {first.id!r}")
    return ordered
