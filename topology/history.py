"""What has happened to the topology: who, when, what, and on what evidence.

::

    {"version": 1, "at": 1767225600.25, "kind": "begun", "epoch": 8, "summary": "add shard d",
     "operator": {"user": "ada", "host": "ops-1", "pid": 4711}, "change": "fedcba9876543210",
     "evidence": {}, "before": {...}}

``before`` is the topology before a change began, which a rollback needs; it holds the URLs of its
shards, passwords included.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from topology.codec import (
    MAX_BYTES,
    decoded_operator,
    decoded_topology,
    encoded_operator,
    encoded_topology,
)
from topology.errors import TopologyInvalid, TopologyTooLarge
from topology.fields import as_object, member, parsed, require_version, typed
from topology.model import Operator, Topology, require_epoch, require_id

VERSION: Final = 1
#: How many entries a store keeps; the oldest go first.
KEPT_ENTRIES: Final = 500
MAX_ENTRY_BYTES: Final = MAX_BYTES + 64 * 1024


class Kind(Enum):
    """What an entry is about."""

    CREATED = "created"
    BEGUN = "begun"
    REFUSED = "refused"  # what was about to begin: somebody was faster
    FINISHED = "finished"
    ABORTED = "aborted"
    PAUSED = "paused"
    RESUMED = "resumed"
    THROTTLED = "throttled"
    WENT_ON_WITHOUT = "went on without"
    MARKED_DOWN = "marked down"
    LEFT_ALONE = "left alone"  # some cannot reach a shard, most can: the monitor let it be
    WITHHELD = "withheld"  # the monitor saw reasons to mark shards as down, and did not


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened; ``at`` is seconds since 1970 by the clock of who did it."""

    at: float
    kind: Kind
    operator: Operator
    epoch: int  #: of the topology afterwards
    summary: str
    change: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)  #: a JSON object
    before: Topology | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.at, int | float) or isinstance(self.at, bool) or not self.at >= 0:
            raise TopologyInvalid(f"the time of an entry is {self.at!r:.40}")
        if not isinstance(self.summary, str):
            raise TopologyInvalid(f"the summary of an entry is {self.summary!r:.40}")
        require_epoch("the epoch of an entry", self.epoch)
        if self.change is not None:
            require_id("the change of an entry", self.change)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, since when (seconds since 1970, by the holder's clock)."""

    operator: Operator
    since: float

    def __str__(self) -> str:
        return str(self.operator)


def encode_entry(entry: Entry) -> bytes:
    """One line of JSON, without its end. TopologyInvalid if the evidence is no JSON.

    TopologyTooLarge if it is larger than a store takes.
    """
    document = {
        "version": VERSION,
        "at": entry.at,
        "kind": entry.kind.value,
        "operator": encoded_operator(entry.operator),
        "epoch": entry.epoch,
        "summary": entry.summary,
        "change": entry.change,
        "evidence": dict(entry.evidence),
        "before": None if entry.before is None else encoded_topology(entry.before),
    }
    try:
        data = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise TopologyInvalid(f"the evidence of an entry is no JSON: {error}") from None
    if len(data) > MAX_ENTRY_BYTES:
        raise TopologyTooLarge(len(data), MAX_ENTRY_BYTES)
    return data


def decode_entry(data: bytes) -> Entry:
    """The entry in the bytes; TopologyInvalid names what is wrong."""
    where = "the entry"
    document = parsed(data, "history entry", MAX_ENTRY_BYTES)
    require_version(document, VERSION, "history entry")
    before = document.get("before")
    return Entry(
        at=document.get("at"),  # type: ignore[arg-type]  # Entry checks it
        kind=member(Kind, document, "kind", where),
        operator=decoded_operator(document.get("operator"), "the operator of the entry"),
        epoch=typed(document, "epoch", int, where),
        summary=typed(document, "summary", str, where),
        change=document.get("change"),
        evidence=typed(document, "evidence", dict, where),
        before=None if before is None else decoded_topology(as_object(before, "before")),
    )


def readable_entries(lines: Iterable[bytes]) -> list[Entry]:
    """The entries in these bytes, without those that are none."""
    entries = []
    for data in lines:
        with suppress(TopologyInvalid):
            entries.append(decode_entry(data))
    return entries


def encode_holder(holder: Holder, token: str) -> bytes:
    """Who holds a lock, and what tells this lock from the holder's next one."""
    document = {**encoded_operator(holder.operator), "since": holder.since, "token": token}
    return json.dumps(document).encode("ascii")


def decode_holder(data: bytes) -> tuple[Holder, str]:
    """TopologyInvalid if this is not who holds a lock."""
    where = "the lock"
    document = parsed(data, "lock", 64 * 1024)
    since = document.get("since")
    if not isinstance(since, int | float) or isinstance(since, bool):
        raise TopologyInvalid(f"{where}: 'since' is {since!r:.40}")
    return Holder(decoded_operator(document, where), since), typed(document, "token", str, where)
