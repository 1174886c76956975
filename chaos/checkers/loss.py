"""P4: what was acknowledged is delivered, or a fault, an expiry or a full channel explains it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from chaos.checkers.base import (
    ANYWHERE,
    HEAL_S,
    Finding,
    ended_early,
    finding,
    host_of,
    memberships,
    messages,
    moves,
    process_specific,
    touching,
)
from chaos.history import (
    Counted,
    History,
    Opened,
    Operation,
    Outcome,
    Verb,
    Window,
    asked_once,
)

TRANSIT_TIMEOUTS = 3.0  # a message may be held back so long to keep its place

#: Reasons that a process counts and that can be true of our messages; bytes that it cannot read
#: are none of ours.
REASONS: Final = ("expired", "full", "order", "unavailable", "abandoned")
#: A later version of the layer writes controls that are counted as malformed.
UPGRADE: Final = "upgrade"
#: Expiry is by the shard's clock, which this sets.
SHARD_CLOCK: Final = "shard-clock"
EARLY_S: Final = 1.0  # messages are written before the begin as well, by those who set things up


@dataclass(frozen=True, slots=True)
class Demand:
    """An acknowledged message that must reach a channel; `join` by which, if by a group."""

    message: str
    write: Operation
    channel: str
    join: Operation | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """How many deliveries were demanded, and each that did not come: its write and the reason."""

    demanded: int
    explained: tuple[tuple[Operation, str], ...]
    unexplained: tuple[tuple[Operation, str], ...]  # with a text that tells it


def check(history: History) -> Finding:
    """`figures`: what was demanded, what of it arrived, and what was lost for which reason."""
    found = losses(history)
    reasons = Counter(reason for _, reason in found.explained)
    if found.unexplained:
        reasons["unexplained"] = len(found.unexplained)
    missing = len(found.explained) + len(found.unexplained)
    violations = [text for _, text in found.unexplained] + _unreadable(history)
    figures = {"acknowledged": found.demanded, "delivered": found.demanded - missing}
    figures |= {f"lost: {reason}": count for reason, count in sorted(reasons.items())}
    return finding("P4", found.demanded, violations, figures)


@asked_once
def losses(history: History) -> Losses:
    """Everything acknowledged that did not arrive."""
    arrived = {(delivery.message, delivery.channel) for delivery in history.deliveries}
    explain = _Explanations(history)
    demanded = 0
    lost = []
    for demand in _demands(history):
        demanded += 1
        if (demand.message, demand.channel) not in arrived:
            lost.append(demand)
    explained = []
    unexplained = []
    # What was sent directly has fewer explanations, so it has the first choice among them.
    for demand in sorted(lost, key=_by_group):
        if reason := explain.reason_of(demand):
            explained.append((demand.write, reason))
        else:
            unexplained.append((demand.write, _told(demand)))
    return Losses(demanded, tuple(explained), tuple(unexplained))


def _is_possible(counted: Counted, history: History) -> bool:
    """Nothing expires before the first message is that old, by whatever clock but the shard's."""
    header = history.header
    too_early = counted.at_s < header.began_s + header.expiry_s - EARLY_S
    if counted.reason == "expired" and too_early:
        return any(window.fault == SHARD_CLOCK for window in history.windows)
    return counted.reason in REASONS


def _unreadable(history: History) -> list[str]:
    """What we wrote must be readable to us."""
    if any(window.fault == UPGRADE for window in history.windows):
        return []
    return [
        f"{one.process} counted {one.count} messages as {one.reason} at {one.at_s:.3f}"
        for one in history.counted
        if one.reason not in REASONS
    ]


def _by_group(demand: Demand) -> bool:
    return demand.join is not None


def _demands(history: History) -> Iterator[Demand]:
    """In order of the writes; nothing is demanded of who had gone before it was sent."""
    members = memberships(history)
    writes = messages(history)
    early = ended_early(history)
    gone_s = {one.channel: early[one.process] for one in history.opened if one.process in early}
    for message, write in writes.items():
        if write.outcome is not Outcome.OK:
            continue
        if write.verb is Verb.SEND:
            if gone_s.get(write.name, write.invoked_s) >= write.invoked_s:
                yield Demand(message, write, write.name)
            continue
        for channel, membership in members.get(write.name, {}).items():
            if gone_s.get(channel, write.invoked_s) < write.invoked_s:
                continue
            join = membership.demands(write)
            if join is not None:
                yield Demand(message, write, channel, join)


class _Explanations:
    """Finds a reason for each loss; a counted loss explains only one."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._faults = history.faults
        self._specific = process_specific(history)
        self._transit_s = history.header.timeout_s * TRANSIT_TIMEOUTS
        self._opened: Mapping[str, Opened] = {one.channel: one for one in history.opened}
        self._moved_s = min((window.began_s for window in moves(history)), default=float("inf"))
        self._lives = [host_of(life.process) for life in history.lives]
        self._early = ended_early(history)
        self._counted = _Counts(history)
        self._waiting = Counter({audit.shard: audit.waiting for audit in history.audits})
        self._reads = _reads_of_queues(history)

    def reason_of(self, demand: Demand) -> str:
        """Empty if there is none."""
        return (
            self._death(demand)
            or self._fault(demand)
            or self._count(demand)
            or self._ended(demand)
            or self._still_there(demand)
        )

    def _death(self, demand: Demand) -> str:
        opened = self._opened.get(demand.channel)
        ended_s = self._early.get(opened.process) if opened else None
        if ended_s is None or ended_s >= demand.write.settled_s + self._transit_s:
            return ""
        return "its process had ended"

    def _fault(self, demand: Demand) -> str:
        write, opened = demand.write, self._opened.get(demand.channel)
        shards, processes = {write.shard}, {host_of(write.process)}
        if opened:
            shards.add(opened.shard)
            processes.add(host_of(opened.process))
        elif demand.channel not in self._specific:
            processes |= set(self._lives)
        windows, gone_s = self._windows_for(demand), self._gone_s(demand)
        if self._moved_s < gone_s:
            shards.add(ANYWHERE)
        window = touching(windows, shards, processes, write.invoked_s, gone_s)
        return f"fault {window.fault}" if window else ""

    def _gone_s(self, demand: Demand) -> float:
        """Until when the message may have been on its way.

        In a queue it waits for a reader, but no longer than what was sent after it.
        """
        settled_s = demand.write.settled_s
        reads = self._reads.get(demand.channel)
        passed_s = settled_s if reads is None else reads.first_of_later_s(settled_s)
        return max(settled_s + self._transit_s, passed_s)

    def _ended(self, demand: Demand) -> str:
        """Messages that expire unread end the memberships of their channel (specification)."""
        opened = self._opened.get(demand.channel)
        if demand.join is None or opened is None:
            return ""
        until_s = demand.write.settled_s + self._transit_s
        expired = any(
            one.reason == "expired"
            and one.process == opened.process
            and demand.join.invoked_s <= one.at_s <= until_s
            for one in self._history.counted
        )
        return "its membership ended with expired messages" if expired else ""

    def _windows_for(self, demand: Demand) -> tuple[Window, ...]:
        """A membership that another process gave may end with the shard, until it is renewed."""
        join, opened = demand.join, self._opened.get(demand.channel)
        if join is None or (opened is not None and join.process == opened.process):
            return self._faults
        return tuple(
            replace(window, ended_s=demand.write.invoked_s)
            if join.invoked_s <= window.ended_s + HEAL_S and window.ended_s < demand.write.invoked_s
            else window
            for window in self._faults
        )

    def _count(self, demand: Demand) -> str:
        from_s = demand.write.invoked_s
        until_s = demand.write.settled_s + self._history.header.expiry_s + self._transit_s
        reason = self._counted.take(from_s, until_s)
        return f"counted as {reason}" if reason else ""

    def _still_there(self, demand: Demand) -> str:
        """Nobody has read it yet, and it may still be read."""
        shard = demand.write.shard
        if demand.channel in self._specific or not self._waiting[shard]:
            return ""
        self._waiting[shard] -= 1
        return "still in its queue"


class _Reads:
    """When the messages of one queue were read, by when they were sent."""

    def __init__(self, reads: list[tuple[float, float]]) -> None:
        reads.sort()
        self._sent_s = [sent_s for sent_s, _ in reads]
        self._first_s = list(accumulate((at_s for _, at_s in reversed(reads)), min))[::-1]

    def first_of_later_s(self, sent_s: float) -> float:
        """When the first of all that were sent later was read; `sent_s` if none was."""
        index = bisect_right(self._sent_s, sent_s)
        return self._first_s[index] if index < len(self._first_s) else sent_s


def _reads_of_queues(history: History) -> Mapping[str, _Reads]:
    sent, specific = messages(history), process_specific(history)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for delivery in history.deliveries:
        if delivery.message in sent and delivery.channel not in specific:
            found[delivery.channel].append((sent[delivery.message].invoked_s, delivery.at_s))
    return {channel: _Reads(reads) for channel, reads in found.items()}


class _Counts:
    """Losses that processes have counted; each is good for one message."""

    def __init__(self, history: History) -> None:
        counted = [one for one in history.counted if _is_possible(one, history)]
        self._at_s = [one.at_s for one in counted]
        self._reasons = [one.reason for one in counted]
        self._left = [one.count for one in counted]
        self._next = list(range(len(counted) + 1))  # the next one that is not used up

    def take(self, from_s: float, until_s: float) -> str:
        """The reason of the first within a time, which is used up by that; empty: there is none."""
        index = self._find(bisect_left(self._at_s, from_s))
        if index == len(self._at_s) or self._at_s[index] > until_s:
            return ""
        self._left[index] -= 1
        if not self._left[index]:
            self._next[index] = index + 1
        return self._reasons[index]

    def _find(self, index: int) -> int:
        while self._next[index] != index:
            self._next[index] = self._next[self._next[index]]
            index = self._next[index]
        return index


def _told(demand: Demand) -> str:
    write = demand.write
    by = f", a member by {demand.join.id}" if demand.join else ""
    return (
        f"{demand.message} ({write.verb} to {write.name} by way of {write.shard}, acknowledged at "
        f"{write.settled_s:.3f}) never came to {demand.channel}{by}; no fault, expiry or full "
        "channel explains it"
    )
