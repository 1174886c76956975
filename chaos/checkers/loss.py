"""P4: what was acknowledged is delivered, or a fault, an expiry or a full channel explains it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from chaos.checkers.base import (
    HEAL_S,
    Finding,
    finding,
    host_of,
    is_process_specific,
    memberships,
    messages,
    touching,
)
from chaos.history import History, Opened, Operation, Outcome, Verb, Window

TRANSIT_TIMEOUTS = 3.0  # a message may be held back so long to keep its place


@dataclass(frozen=True, slots=True)
class Demand:
    """An acknowledged message that must reach a channel; `join` by which, if by a group."""

    message: str
    write: Operation
    channel: str
    join: Operation | None = None


def check(history: History) -> Finding:
    """`figures`: what was demanded, what of it arrived, and what was lost for which reason."""
    arrived = {(delivery.message, delivery.channel) for delivery in history.deliveries}
    explain = _Explanations(history)
    reasons: Counter[str] = Counter()
    violations = []
    demands = list(_demands(history))
    lost = [one for one in demands if (one.message, one.channel) not in arrived]
    # What was sent directly has fewer explanations, so it has the first choice among them.
    for demand in sorted(lost, key=_by_group):
        reason = explain.reason_of(demand)
        reasons[reason or "unexplained"] += 1
        if not reason:
            violations.append(_told(demand))
    figures = {"acknowledged": len(demands), "delivered": len(demands) - len(lost)}
    figures |= {f"lost: {reason}": count for reason, count in sorted(reasons.items())}
    return finding("P4", len(demands), violations, figures)


def _by_group(demand: Demand) -> bool:
    return demand.join is not None


def _demands(history: History) -> Iterator[Demand]:
    """In order of the writes."""
    members = memberships(history)
    writes = messages(history)
    for message, write in sorted(writes.items(), key=lambda item: item[1].invoked_s):
        if write.outcome is not Outcome.OK:
            continue
        if write.verb is Verb.SEND:
            yield Demand(message, write, write.name)
            continue
        for channel, membership in members.get(write.name, {}).items():
            join = membership.demands(write)
            if join is not None:
                yield Demand(message, write, channel, join)


class _Explanations:
    """Finds a reason for each loss; a counted loss explains only one."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._transit_s = history.header.timeout_s * TRANSIT_TIMEOUTS
        self._opened: Mapping[str, Opened] = {one.channel: one for one in history.opened}
        self._lives = {life.process: life for life in history.lives}
        self._counted = list(history.counted)
        self._waiting = Counter({audit.shard: audit.waiting for audit in history.audits})
        self._reads: dict[str, list[tuple[float, float]]] = defaultdict(list)
        sent = messages(history)
        for delivery in history.deliveries:
            if delivery.message in sent and not is_process_specific(delivery.channel):
                sent_s = sent[delivery.message].invoked_s
                self._reads[delivery.channel].append((sent_s, delivery.at_s))

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
        life = self._lives.get(opened.process) if opened else None
        if life is None or not life.killed:
            return ""
        gone = life.ended_s < demand.write.settled_s + self._transit_s
        return "its process was killed" if gone else ""

    def _fault(self, demand: Demand) -> str:
        write, opened = demand.write, self._opened.get(demand.channel)
        shards, processes = {write.shard}, {host_of(write.process)}
        if opened:
            shards.add(opened.shard)
            processes.add(host_of(opened.process))
        elif not is_process_specific(demand.channel):
            processes |= {host_of(process) for process in self._lives}
        windows = self._windows_for(demand)
        window = touching(windows, shards, processes, write.invoked_s, self._gone_s(demand))
        return f"fault {window.fault}" if window else ""

    def _gone_s(self, demand: Demand) -> float:
        """Until when the message may have been on its way.

        In a queue it waits for a reader, but no longer than what was sent after it.
        """
        settled_s = demand.write.settled_s
        later = [] if is_process_specific(demand.channel) else self._reads[demand.channel]
        passed = (at_s for sent_s, at_s in later if sent_s > settled_s)
        return max(settled_s + self._transit_s, min(passed, default=settled_s))

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
            return self._history.windows
        return tuple(
            replace(window, ended_s=demand.write.invoked_s)
            if join.invoked_s <= window.ended_s + HEAL_S and window.ended_s < demand.write.invoked_s
            else window
            for window in self._history.windows
        )

    def _count(self, demand: Demand) -> str:
        from_s = demand.write.invoked_s
        until_s = demand.write.settled_s + self._history.header.expiry_s + self._transit_s
        for index, counted in enumerate(self._counted):
            if from_s <= counted.at_s <= until_s:
                self._take_one(index)
                return f"counted as {counted.reason}"
        return ""

    def _still_there(self, demand: Demand) -> str:
        """Nobody has read it yet, and it may still be read."""
        shard = demand.write.shard
        if is_process_specific(demand.channel) or not self._waiting[shard]:
            return ""
        self._waiting[shard] -= 1
        return "still in its queue"

    def _take_one(self, index: int) -> None:
        counted = self._counted[index]
        if counted.count == 1:
            del self._counted[index]
        else:
            self._counted[index] = replace(counted, count=counted.count - 1)


def _told(demand: Demand) -> str:
    write = demand.write
    by = f", a member by {demand.join.id}" if demand.join else ""
    return (
        f"{demand.message} ({write.verb} to {write.name} by way of {write.shard}, acknowledged at "
        f"{write.settled_s:.3f}) never came to {demand.channel}{by}; no fault, expiry or full "
        "channel explains it"
    )
