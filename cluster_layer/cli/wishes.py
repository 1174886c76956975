"""What an operator wants of the shards: from shards to shards, pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cluster_layer.errors import ConfigError
from topology.model import Shard, ShardState, Topology
from topology.planning import plan
from topology.plans import Plan

Shards = Mapping[str, Shard]
#: A wish as a function, and in words.
Wish = tuple[Callable[[Shards], Shards], str]

_SUMMARY_LENGTH = 500


def plan_of(topology: Topology, wishes: Iterable[Wish]) -> Plan:
    """The plan that fulfils all wishes at once; ConfigError if one of them cannot be."""
    shards: Shards = {shard.id: shard for shard in topology.final_shards()}
    texts = []
    for wish, text in wishes:
        shards = wish(shards)
        texts.append(text)
    return plan(topology, shards.values(), "; ".join(texts)[:_SUMMARY_LENGTH])


def add(new: Shard) -> Wish:
    def added(shards: Shards) -> Shards:
        if new.id in shards:
            raise ConfigError(f"there is a shard {new.id!r} already; write ID=URL to name the new")
        return {**shards, new.id: new}

    weight = "" if new.weight == 1 else f" with weight {new.weight:g}"
    return added, f"add {new.id}{weight}"


def drain(shard_id: str) -> Wish:
    """Move everything away, and keep the shard."""
    return _altered(shard_id, state=ShardState.DRAINING), f"drain {shard_id}"


def remove(shard_id: str) -> Wish:
    def removed(shards: Shards) -> Shards:
        _require(shards, shard_id)
        return {key: shard for key, shard in shards.items() if key != shard_id}

    return removed, f"remove {shard_id}"


def weigh(shard_id: str, weight: float) -> Wish:
    return _altered(shard_id, weight=weight), f"weight of {shard_id} {weight:g}"


def mark_up(shard_id: str) -> Wish:
    """Of one that is down, or drains."""
    return _altered(shard_id, state=ShardState.UP), f"mark {shard_id} up"


def balance() -> Wish:
    return (lambda shards: shards), "balance"


def require_known(topology: Topology, shard_ids: Sequence[str]) -> None:
    """ConfigError for the first one that there is not."""
    for shard_id in shard_ids:
        _require({shard.id: shard for shard in topology.shards}, shard_id)


def _altered(shard_id: str, **fields: object) -> Callable[[Shards], Shards]:
    def altered(shards: Shards) -> Shards:
        shard = _require(shards, shard_id)
        changed = replace(shard, **fields)  # type: ignore[arg-type]  # the callers' fields
        return {**shards, shard_id: changed}

    return altered


def _require(shards: Shards, shard_id: str) -> Shard:
    shard = shards.get(shard_id)
    if shard is None:
        raise ConfigError(f"there is no shard {shard_id!r}, only {', '.join(sorted(shards))}")
    return shard
