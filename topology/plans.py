"""What a planned change will move, and why: a value that can be saved, read and executed as it is.

::

    {"version": 1, "cluster": "90e2f3b4c5d6a718", "epoch": 7, "summary": "add shard d",
     "shards": [{"id": "a", "url": "redis://a:6379", "weight": 1, "state": "up"}, ...],
     "moves": [{"from": "a", "to": "d", "slots": [17, 29, ...]}, ...]}

The URLs of shards may hold passwords, and so does a saved plan.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from topology.codec import MAX_BYTES, decoded_shard, encoded_shard
from topology.errors import TopologyInvalid
from topology.fields import as_object, items, parsed, require_version, typed
from topology.hashing import SLOTS
from topology.model import Shard, require_epoch, require_id, require_text

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Move:
    """One slot goes from one shard to another; both are shard ids."""

    slot: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to move, and the shards afterwards; good only for the epoch that it was made from."""

    cluster: str
    epoch: int
    summary: str
    shards: tuple[Shard, ...]
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        require_id("the cluster of a plan", self.cluster)
        require_epoch("the epoch of a plan", self.epoch)
        require_text("the summary of a plan", self.summary)
        slots = {move.slot for move in self.moves}
        if len(slots) != len(self.moves):
            raise TopologyInvalid("a plan moves no slot twice")
        if not slots <= set(range(SLOTS)):
            raise TopologyInvalid(f"a plan moves slots from 0 to {SLOTS - 1} only")

    def flows(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """(source, target) -> slots that go this way, ascending."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for move in self.moves:
            found[move.source, move.target].append(move.slot)
        return {flow: tuple(sorted(found[flow])) for flow in sorted(found)}


def encode_plan(plan: Plan) -> bytes:
    """The plan as bytes; equal plans give equal bytes."""
    flows = plan.flows().items()
    document = {
        "version": VERSION,
        "cluster": plan.cluster,
        "epoch": plan.epoch,
        "summary": plan.summary,
        "shards": [encoded_shard(shard) for shard in plan.shards],
        "moves": [
            {"from": source, "to": target, "slots": slots} for (source, target), slots in flows
        ],
    }
    return json.dumps(document).encode("ascii") + b"\n"


def decode_plan(data: bytes) -> Plan:
    """The plan in the bytes; TopologyInvalid names what is wrong."""
    document = parsed(data, "plan", MAX_BYTES)
    require_version(document, VERSION, "plan")
    where = "the plan"
    flows = items(document, "moves", where, _decoded_flow)
    moves = sorted((move for flow in flows for move in flow), key=lambda move: move.slot)
    return Plan(
        cluster=typed(document, "cluster", str, where),
        epoch=typed(document, "epoch", int, where),
        summary=typed(document, "summary", str, where),
        shards=items(document, "shards", where, decoded_shard),
        moves=tuple(moves),
    )


def _decoded_flow(index: int, value: object) -> list[Move]:
    where = f"move {index}"
    entry: Mapping[str, Any] = as_object(value, where)
    source, target = typed(entry, "from", str, where), typed(entry, "to", str, where)
    slots = typed(entry, "slots", list, where)
    if not all(type(slot) is int for slot in slots):
        raise TopologyInvalid(f"{where}: 'slots' must hold integers")
    return [Move(slot, source, target) for slot in slots]
