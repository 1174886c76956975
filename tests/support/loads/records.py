"""What the processes of a load have written down: compact, because there is a lot of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack


@dataclass(slots=True)
class Written:
    """One flow: message n was due at ``due_s[n]``; what did not end well, by its number."""

    due_s: array[float] = field(default_factory=lambda: array("d"))
    took_s: array[float] = field(default_factory=lambda: array("f"))
    refused: dict[int, str] = field(default_factory=dict)  # it definitely did not happen, and why
    unknown: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Read:
    """What one channel has got of one flow: how often each number, and those that came late."""

    counts: bytearray = field(default_factory=bytearray)
    last: int = -1
    late: list[tuple[int, float]] = field(default_factory=list)  # number, time of arrival
    twice: list[tuple[int, float]] = field(default_factory=list)

    def note(self, number: int, now: float) -> None:
        if number >= len(self.counts):
            self.counts.extend(bytes(max(256, number + 1 - len(self.counts))))
        if self.counts[number]:
            self.twice.append((number, now))
        elif number < self.last:
            self.late.append((number, now))
        self.counts[number] = min(255, self.counts[number] + 1)
        self.last = max(self.last, number)


@dataclass(slots=True)
class Arrivals:
    """Every delivery: its flow and number, when it came, how long after it had been due."""

    flow: array[int] = field(default_factory=lambda: array("H"))
    number: array[int] = field(default_factory=lambda: array("L"))
    at_s: array[float] = field(default_factory=lambda: array("d"))
    after_s: array[float] = field(default_factory=lambda: array("f"))


@dataclass(slots=True)
class Record:
    """One process."""

    written: dict[int, Written] = field(default_factory=dict)  # by flow
    read: dict[tuple[str, int], Read] = field(default_factory=dict)  # by channel and flow
    arrivals: Arrivals = field(default_factory=Arrivals)
    strangers: list[str] = field(default_factory=list)  # messages that are none of the load's
    stats: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        written = [
            (flow, one.due_s.tobytes(), one.took_s.tobytes(), one.refused, one.unknown)
            for flow, one in self.written.items()
        ]
        read = [
            (*key, bytes(one.counts), one.last, one.late, one.twice)
            for key, one in self.read.items()
        ]
        arrivals = self.arrivals
        packed = {
            "written": written,
            "read": read,
            "arrivals": [
                one.tobytes()
                for one in (arrivals.flow, arrivals.number, arrivals.at_s, arrivals.after_s)
            ],
            "strangers": self.strangers,
            "stats": self.stats,
        }
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgpack.packb(packed))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Record:
        found = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
        record = cls(strangers=found["strangers"], stats=found["stats"])
        for flow, due_s, took_s, refused, unknown in found["written"]:
            record.written[flow] = Written(array("d", due_s), array("f", took_s), refused, unknown)
        for channel, flow, counts, last, late, twice in found["read"]:
            record.read[channel, flow] = Read(
                bytearray(counts), last, list(map(tuple, late)), list(map(tuple, twice))
            )
        flows, numbers, at_s, after_s = found["arrivals"]
        record.arrivals = Arrivals(
            array("H", flows), array("L", numbers), array("d", at_s), array("f", after_s)
        )
        return record


@dataclass(frozen=True, slots=True)
class Records:
    """All processes, by name."""

    by_process: Mapping[str, Record]

    def written(self) -> Iterator[tuple[int, Written]]:
        for record in self.by_process.values():
            yield from record.written.items()

    def send_latencies_s(self, begin_s: float, end_s: float) -> list[float]:
        """How long the calls took that were due in this time."""
        return [
            took_s
            for _, one in self.written()
            for due_s, took_s in zip(one.due_s, one.took_s, strict=False)
            if begin_s <= due_s < end_s
        ]

    def delivery_latencies_s(self, begin_s: float, end_s: float) -> list[float]:
        """How long after they had been due messages came that came in this time."""
        return [
            after_s
            for record in self.by_process.values()
            for at_s, after_s in zip(record.arrivals.at_s, record.arrivals.after_s, strict=True)
            if begin_s <= at_s < end_s
        ]
