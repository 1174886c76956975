"""What became of every message; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.support.loads.flows import Traffic
from tests.support.loads.records import Records


@dataclass(frozen=True, slots=True)
class Mishap:
    """A message that a channel did not get, or should not have got so."""

    flow: int
    number: int
    channel: str
    due_s: float  # when it was due to be written

    def __str__(self) -> str:
        return f"message {self.number} of flow {self.flow} at {self.channel}"


@dataclass(slots=True)
class Verdict:
    """Everything that P1 to P5 are about."""

    writes: int = 0
    deliveries: int = 0
    lost: list[Mishap] = field(default_factory=list)
    duplicated: list[Mishap] = field(default_factory=list)
    disordered: list[Mishap] = field(default_factory=list)
    #: Delivered although it was refused, never written, or meant for others.
    uncalled: list[Mishap] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    #: Losses of the processes that a change went on without.
    lost_by_left_out: list[Mishap] = field(default_factory=list)

    @property
    def unharmed(self) -> bool:
        """Nothing came twice, out of order, or uncalled; losses are another matter."""
        return not (self.duplicated or self.disordered or self.uncalled)

    @property
    def flawless(self) -> bool:
        return self.unharmed and not (self.lost or self.refused or self.unknown)

    def within(self, begin_s: float, end_s: float) -> Verdict:
        """The mishaps of messages that were due in this time; counts stay those of all."""

        def part(mishaps: list[Mishap]) -> list[Mishap]:
            return [one for one in mishaps if begin_s <= one.due_s < end_s]

        return Verdict(
            self.writes,
            self.deliveries,
            part(self.lost),
            part(self.duplicated),
            part(self.disordered),
            part(self.uncalled),
            self.refused,
            self.unknown,
            part(self.lost_by_left_out),
        )

    def __str__(self) -> str:
        return (
            f"{self.writes:,} writes, {self.deliveries:,} deliveries; {len(self.lost)} lost, "
            f"{len(self.duplicated)} duplicated, {len(self.disordered)} out of order, "
            f"{len(self.uncalled)} uncalled, {self.unknown.total()} unknown {dict(self.unknown)}, "
            f"{self.refused.total()} refused {dict(self.refused)}"
        )


def verdict_of(traffic: Traffic, records: Records, *, left_out: Collection[str] = ()) -> Verdict:
    """`left_out`: processes whose own losses are counted apart."""
    verdict = Verdict()
    counts, due_s = _delivered(records), dict(records.written())
    for index, written in due_s.items():
        flow = traffic.flows[index]
        verdict.writes += len(written.took_s)
        verdict.refused.update(written.refused.values())
        verdict.unknown.update(written.unknown.values())
        for number, due in enumerate(written.due_s):
            for channel in traffic.addressees(flow.target_of(number)):
                got = counts.get((channel, index), b"")
                count = got[number] if number < len(got) else 0
                mishap = Mishap(index, number, channel, due)
                if count > 1:
                    verdict.duplicated.append(mishap)
                if count and number in written.refused:
                    verdict.uncalled.append(mishap)
                if count or number in written.refused or number in written.unknown:
                    continue
                own = traffic.readers.get(channel) in left_out
                (verdict.lost_by_left_out if own else verdict.lost).append(mishap)
    _judge_arrivals(verdict, traffic, records)
    return verdict


def _delivered(records: Records) -> dict[tuple[str, int], list[int]]:
    """How often each number came to a channel; normal channels have readers in many processes."""
    total: dict[tuple[str, int], list[int]] = {}
    for record in records.by_process.values():
        for key, read in record.read.items():
            known = total.setdefault(key, [])
            known.extend([0] * (len(read.counts) - len(known)))
            for number, count in enumerate(read.counts):
                known[number] += count
    return total


def _judge_arrivals(verdict: Verdict, traffic: Traffic, records: Records) -> None:
    written = dict(records.written())
    for record in records.by_process.values():
        verdict.uncalled += [Mishap(-1, -1, text, 0.0) for text in record.strangers]
        verdict.deliveries += len(record.arrivals.flow)
        for (channel, index), read in record.read.items():
            flow, due_s = traffic.flows[index], written[index].due_s if index in written else ()
            # Readers of a normal channel compete: each may be the slower one.
            if channel in traffic.readers:
                verdict.disordered += [
                    Mishap(index, number, channel, due_s[number]) for number, _ in read.late
                ]
            for number, count in enumerate(read.counts):
                if not count:
                    continue
                addressed = channel in traffic.addressees(flow.target_of(number))
                if number >= len(due_s) or not addressed:
                    verdict.uncalled.append(Mishap(index, number, channel, 0.0))
