"""Topology <-> versioned JSON bytes, readable in any language.

::

    {"version": 1, "cluster": "90e2f3b4c5d6a718", "epoch": 7, "phase": "steady",
     "shards": [{"id": "a", "url": "redis://a:6379", "weight": 1, "state": "up"}, ...],
     "table": "0001...", "pending": null, "previous": null, "change": null}

A table is a string of lower-case hexadecimal digits, two per slot if there are at most 256 shards,
else three: its owner's index in ``shards``. docs/wire-format.md has every field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NoReturn, TypeVar

from topology.errors import TopologyInvalid, TopologyTooLarge
from topology.hashing import SLOTS
from topology.model import Change, Operator, Phase, Shard, ShardState, SlotTable, Topology

VERSION: Final = 1
#: About half of what ZooKeeper takes; 1,000 shards with ordinary URLs need some 100 kB.
MAX_BYTES: Final = 512 * 1024

_DIGITS: Final = re.compile("[0-9a-f]*")
_Member = TypeVar("_Member", bound=Enum)


def encode(topology: Topology) -> bytes:
    """The topology as bytes; equal topologies give equal bytes. TopologyTooLarge over MAX_BYTES."""
    document = {
        "version": VERSION,
        "cluster": topology.cluster,
        "epoch": topology.epoch,
        "phase": topology.phase.value,
        "shards": [_encoded_shard(shard) for shard in topology.shards],
        "table": _encoded_table(topology, topology.table),
        "pending": _encoded_table(topology, topology.pending),
        "previous": _encoded_table(topology, topology.previous),
        "change": _encoded_change(topology, topology.change),
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
        cluster=_typed(document, "cluster", str, "the topology"),
        epoch=_typed(document, "epoch", int, "the topology"),
        shards=shards,
        table=_decoded_table("table", document.get("table"), shards),
        phase=_member(Phase, document, "phase", "the topology"),
        pending=_decoded_optional_table("pending", document, shards),
        previous=_decoded_optional_table("previous", document, shards),
        change=_decoded_change(document.get("change"), shards),
    )


def _encoded_shard(shard: Shard) -> dict[str, Any]:
    return {"id": shard.id, "url": shard.url, "weight": shard.weight, "state": shard.state.value}


def _encoded_table(topology: Topology, table: SlotTable | None) -> str | None:
    if table is None:
        return None
    width = _width(topology.shards)
    digits = {shard.id: f"{index:0{width}x}" for index, shard in enumerate(topology.shards)}
    return "".join([digits[owner] for owner in table.owners])


def _encoded_change(topology: Topology, change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    operator = change.operator
    return {
        "id": change.id,
        "summary": change.summary,
        "operator": {"user": operator.user, "host": operator.host, "pid": operator.pid},
        "started_at": change.started_at,
        "began_from": change.began_from,
        "table": _encoded_table(topology, change.table),
        "slots": change.slots,
        "step": change.step,
        "arriving": list(change.arriving),
        "leaving": list(change.leaving),
        "former": [_encoded_shard(shard) for shard in change.former],
        "paused": change.paused,
        "aborting": change.aborting,
    }


def _width(shards: tuple[Shard, ...]) -> int:
    return 2 if len(shards) <= 256 else 3


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


def _object(entry: object, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise TopologyInvalid(f"{where} must be an object, not {type(entry).__name__}")
    return entry


def _decoded_shard(index: int, value: object) -> Shard:
    where = f"shard {index}"
    entry = _object(value, where)
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
    width = _width(shards)
    # Python's int() is lenient (it takes spaces and signs), other languages' parsers are not.
    if (
        not isinstance(encoded, str)
        or len(encoded) != width * SLOTS
        or not _DIGITS.fullmatch(encoded)
    ):
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
    entry = _object(value, where)
    operator = _object(entry.get("operator"), "the operator of the change")
    return Change(
        id=entry.get("id"),  # type: ignore[arg-type]  # Change and Operator check what they hold
        summary=entry.get("summary"),  # type: ignore[arg-type]
        operator=Operator(operator.get("user"), operator.get("host"), operator.get("pid")),  # type: ignore[arg-type]
        started_at=entry.get("started_at"),  # type: ignore[arg-type]
        began_from=entry.get("began_from"),  # type: ignore[arg-type]
        table=_decoded_table("the table of the change", entry.get("table"), shards),
        slots=entry.get("slots"),  # type: ignore[arg-type]
        step=entry.get("step"),  # type: ignore[arg-type]
        arriving=_decoded_ids(entry, "arriving"),
        leaving=_decoded_ids(entry, "leaving"),
        former=tuple(
            _decoded_shard(index, shard)
            for index, shard in enumerate(_typed(entry, "former", list, where))
        ),
        paused=entry.get("paused"),
        aborting=entry.get("aborting"),  # type: ignore[arg-type]
    )


def _decoded_ids(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    ids = _typed(entry, key, list, "the change")
    for shard_id in ids:
        if type(shard_id) is not str:
            raise TopologyInvalid(f"the change: {key!r} must hold shard ids, not {shard_id!r:.40}")
    return tuple(ids)


def _shown(value: object) -> str:
    return repr(value)[:40]
