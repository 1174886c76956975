"""Topology <-> versioned JSON bytes, readable in any language.

::

    {"version": 1, "epoch": 7, "phase": "steady",
     "shards": [{"id": "a", "url": "redis://a:6379", "weight": 1, "state": "up"}, ...],
     "table": "0001...", "pending": null, "previous": null}

A table is a string of two lower-case hexadecimal digits per slot: its owner's index in ``shards``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NoReturn, TypeVar

from topology.errors import TopologyInvalid, TopologyTooLarge
from topology.hashing import SLOTS
from topology.model import Phase, Shard, ShardState, SlotTable, Topology

VERSION: Final = 1
#: About half of what ZooKeeper takes; 256 shards with ordinary URLs need some 40 kB.
MAX_BYTES: Final = 512 * 1024

_TABLE: Final = re.compile(f"[0-9a-f]{{{2 * SLOTS}}}")
_Member = TypeVar("_Member", bound=Enum)


def encode(topology: Topology) -> bytes:
    """The topology as bytes; equal topologies give equal bytes. TopologyTooLarge over MAX_BYTES."""
    document = {
        "version": VERSION,
        "epoch": topology.epoch,
        "phase": topology.phase.value,
        "shards": [
            {"id": shard.id, "url": shard.url, "weight": shard.weight, "state": shard.state.value}
            for shard in topology.shards
        ],
        "table": _encoded_table(topology, topology.table),
        "pending": _encoded_table(topology, topology.pending),
        "previous": _encoded_table(topology, topology.previous),
    }
    data = json.dumps(document, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_BYTES:
        raise TopologyTooLarge(len(data), MAX_BYTES)
    return data


def decode(data: bytes) -> Topology:
    """The topology in the bytes; fields that this version does not know are ignored.

    TopologyInvalid names what is wrong: not our format, an unknown version, a wrong type or value.
    """
    document = _parsed(data)
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise TopologyInvalid(
            f"the topology has version {_shown(version)}, this software reads {VERSION}"
        )
    shards = tuple(
        _decoded_shard(index, entry)
        for index, entry in enumerate(_typed(document, "shards", list, "the topology"))
    )
    return Topology(
        epoch=_typed(document, "epoch", int, "the topology"),
        shards=shards,
        table=_decoded_table("table", document.get("table"), shards),
        phase=_member(Phase, document, "phase", "the topology"),
        pending=_decoded_optional_table("pending", document, shards),
        previous=_decoded_optional_table("previous", document, shards),
    )


def _encoded_table(topology: Topology, table: SlotTable | None) -> str | None:
    if table is None:
        return None
    index_of = {shard.id: index for index, shard in enumerate(topology.shards)}
    return bytes(index_of[owner] for owner in table.owners).hex()


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise TopologyInvalid(f"{len(data)} bytes are no topology: the limit is {MAX_BYTES}")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TopologyInvalid(f"{len(data)} bytes are not a JSON topology: {error}") from None
    if not isinstance(document, dict):
        raise TopologyInvalid(f"a topology is a JSON object, not {type(document).__name__}")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _typed(mapping: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = mapping.get(key)
    if type(value) is not kind:
        raise TopologyInvalid(
            f"{where}: {key!r} must be {kind.__name__}, not {type(value).__name__}"
        )
    return value


def _member(kind: type[_Member], mapping: Mapping[str, Any], key: str, where: str) -> _Member:
    try:
        return kind(mapping.get(key))
    except ValueError:
        raise TopologyInvalid(f"{where}: {key!r} is {_shown(mapping.get(key))}") from None


def _decoded_shard(index: int, entry: object) -> Shard:
    where = f"shard {index}"
    if not isinstance(entry, dict):
        raise TopologyInvalid(f"{where} must be an object, not {type(entry).__name__}")
    return Shard(
        id=_typed(entry, "id", str, where),
        url=_typed(entry, "url", str, where),
        weight=entry.get("weight"),  # type: ignore[arg-type]  # Shard checks it
        state=_member(ShardState, entry, "state", where),
    )


def _decoded_optional_table(
    name: str, document: Mapping[str, Any], shards: tuple[Shard, ...]
) -> SlotTable | None:
    encoded = document.get(name)
    return None if encoded is None else _decoded_table(name, encoded, shards)


def _decoded_table(name: str, encoded: object, shards: tuple[Shard, ...]) -> SlotTable:
    # Python's fromhex is lenient (it skips spaces), other languages' parsers are not.
    if not isinstance(encoded, str) or not _TABLE.fullmatch(encoded):
        raise TopologyInvalid(f"{name} must be a string of {2 * SLOTS} hexadecimal digits")
    indexes = bytes.fromhex(encoded)
    if max(indexes) >= len(shards):
        raise TopologyInvalid(
            f"{name} names shard {max(indexes)}, but there are {len(shards)} (from 0)"
        )
    return SlotTable(tuple(shards[index].id for index in indexes))


def _shown(value: object) -> str:
    return repr(value)[:40]
