"""Topology <-> versioned JSON bytes, readable in any language.

::

    {"version": 1, "cluster": "90e2f3b4c5d6a718", "epoch": 7, "phase": "steady",
     "shards": [{"id": "a", "url": "redis://a:6379", "weight": 1, "state": "up"}, ...],
     "table": "0001...", "pending": null, "previous": null, "change": null, "homes_since": 5}

A table is a string of lower-case hexadecimal digits, two per slot if there are at most 256 shards,
else three: its owner's index in ``shards``. docs/wire-format.md has every field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from topology.errors import TopologyInvalid, TopologyTooLarge
from topology.fields import as_object, items, member, parsed, require_version, typed
from topology.hashing import SLOTS
from topology.model import Change, Operator, Phase, Shard, ShardState, SlotTable, Topology

VERSION: Final = 1
#: About half of what ZooKeeper takes; 1,000 shards with ordinary URLs need some 100 kB.
MAX_BYTES: Final = 512 * 1024

_DIGITS: Final = re.compile("[0-9a-f]*")


def encode(topology: Topology) -> bytes:
    """The topology as bytes; equal topologies give equal bytes. TopologyTooLarge over MAX_BYTES."""
    data = json.dumps(encoded_topology(topology), separators=(",", ":")).encode("ascii")
    if len(data) > MAX_BYTES:
        raise TopologyTooLarge(len(data), MAX_BYTES)
    return data


def decode(data: bytes) -> Topology:
    """The topology in the bytes; fields that this version does not know are ignored.

    TopologyInvalid names what is wrong: not our format, an unknown version, a wrong type or value.
    """
    return decoded_topology(parsed(data, "topology", MAX_BYTES))


def encoded_topology(topology: Topology) -> dict[str, Any]:
    """The topology as a JSON object."""
    return {
        "version": VERSION,
        "cluster": topology.cluster,
        "epoch": topology.epoch,
        "phase": topology.phase.value,
        "shards": [encoded_shard(shard) for shard in topology.shards],
        "table": _encoded_table(topology, topology.table),
        "pending": _encoded_table(topology, topology.pending),
        "previous": _encoded_table(topology, topology.previous),
        "change": _encoded_change(topology, topology.change),
        "homes_since": topology.homes_since,
    }


def decoded_topology(document: Mapping[str, Any]) -> Topology:
    """The topology in a JSON object; TopologyInvalid."""
    require_version(document, VERSION, "topology")
    where = "the topology"
    shards = items(document, "shards", where, decoded_shard)
    epoch = typed(document, "epoch", int, where)
    return Topology(
        cluster=typed(document, "cluster", str, where),
        epoch=epoch,
        shards=shards,
        table=_decoded_table("table", document.get("table"), shards),
        phase=member(Phase, document, "phase", where),
        pending=_decoded_optional_table("pending", document, shards),
        previous=_decoded_optional_table("previous", document, shards),
        change=_decoded_change(document.get("change"), shards),
        # Whoever does not tell may have given a slot a new home just now.
        homes_since=typed({"homes_since": epoch, **document}, "homes_since", int, where),
    )


def encoded_shard(shard: Shard) -> dict[str, Any]:
    return {"id": shard.id, "url": shard.url, "weight": shard.weight, "state": shard.state.value}


def decoded_shard(index: int, value: object) -> Shard:
    where = f"shard {index}"
    entry = as_object(value, where)
    return Shard(
        id=typed(entry, "id", str, where),
        url=typed(entry, "url", str, where),
        weight=entry.get("weight"),  # type: ignore[arg-type]  # Shard checks it
        state=member(ShardState, entry, "state", where),
    )


def encoded_operator(operator: Operator) -> dict[str, Any]:
    return {"user": operator.user, "host": operator.host, "pid": operator.pid}


def decoded_operator(value: object, where: str) -> Operator:
    entry = as_object(value, where)
    # Operator checks what it holds.
    return Operator(entry.get("user"), entry.get("host"), entry.get("pid"))  # type: ignore[arg-type]


def _encoded_table(topology: Topology, table: SlotTable | None) -> str | None:
    if table is None:
        return None
    width = _width(topology.shards)
    digits = {shard.id: f"{index:0{width}x}" for index, shard in enumerate(topology.shards)}
    return "".join([digits[owner] for owner in table.owners])


def _encoded_change(topology: Topology, change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "id": change.id,
        "summary": change.summary,
        "operator": encoded_operator(change.operator),
        "started_at": change.started_at,
        "began_from": change.began_from,
        "table": _encoded_table(topology, change.table),
        "slots": change.slots,
        "step": change.step,
        "arriving": list(change.arriving),
        "leaving": list(change.leaving),
        "former": [encoded_shard(shard) for shard in change.former],
        "paused": change.paused,
        "aborting": change.aborting,
    }


def _width(shards: tuple[Shard, ...]) -> int:
    return 2 if len(shards) <= 256 else 3


def _decoded_optional_table(
    name: str, document: Mapping[str, Any], shards: tuple[Shard, ...]
) -> SlotTable | None:
    encoded = document.get(name)
    return None if encoded is None else _decoded_table(name, encoded, shards)


def _decoded_table(name: str, encoded: object, shards: tuple[Shard, ...]) -> SlotTable:
    width = _width(shards)
    # Python's int() is lenient (it takes spaces and signs), other languages' parsers are not.
    right_size = isinstance(encoded, str) and len(encoded) == width * SLOTS
    if not isinstance(encoded, str) or not right_size or not _DIGITS.fullmatch(encoded):
        raise TopologyInvalid(f"{name} must be a string of {width * SLOTS} hexadecimal digits")
    owners = {f"{index:0{width}x}": shard.id for index, shard in enumerate(shards)}
    digits = [encoded[start : start + width] for start in range(0, width * SLOTS, width)]
    try:
        return SlotTable(tuple([owners[index] for index in digits]))
    except KeyError as error:
        raise TopologyInvalid(
            f"{name} names shard {int(error.args[0], 16)}, but there are {len(shards)} (from 0)"
        ) from None


def _decoded_change(value: object, shards: tuple[Shard, ...]) -> Change | None:
    if value is None:
        return None
    where = "the change"
    entry = as_object(value, where)
    return Change(
        id=typed(entry, "id", str, where),
        summary=typed(entry, "summary", str, where),
        operator=decoded_operator(entry.get("operator"), "the operator of the change"),
        started_at=typed(entry, "started_at", int, where),
        began_from=typed(entry, "began_from", int, where),
        table=_decoded_table("the table of the change", entry.get("table"), shards),
        slots=typed(entry, "slots", int, where),
        step=typed(entry, "step", int, where),
        arriving=items(entry, "arriving", where, _decoded_id),
        leaving=items(entry, "leaving", where, _decoded_id),
        former=items(entry, "former", where, decoded_shard),
        paused=entry.get("paused"),
        aborting=typed(entry, "aborting", bool, where),
    )


def _decoded_id(_: int, value: object) -> str:
    if type(value) is not str:
        raise TopologyInvalid(f"the change must name shards by their ids, not by {value!r:.40}")
    return value
