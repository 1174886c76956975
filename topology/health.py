"""Which shards are lost, and which may come back: observations and the time -> a judgement.

A shard is lost when the observer who judges could not reach it for some time *and* a majority of
all observers with a fresh view, itself among them, cannot either. Observers are monitors and the
processes that send and receive: who cannot reach a shard while most others can is cut off itself.
For the same reason nothing is judged while more shards than a set share are out of reach.

A shard that is marked as down may come back when it has been well, without interruption, for a
quiet time: one that comes and goes does more harm than one that stays away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from topology.errors import TopologyInvalid
from topology.model import ShardState, Topology


@dataclass(frozen=True, slots=True)
class Limits:
    """When a judgement is due; all times in seconds."""

    down_after_s: float = 1.0  # out of reach for so long
    leave_after_s: float = 5.0  # out of reach for so long, and most others reach it
    gap_s: float = 2.0  # observations further apart say nothing about the time between
    fresh_s: float = 3.0  # an older view of another observer says nothing
    quiet_s: float = 60.0  # well for so long before it comes back
    max_down_share: float = 1 / 3  # of all shards; at least one may be down

    def __post_init__(self) -> None:
        for name in ("down_after_s", "leave_after_s", "gap_s", "fresh_s", "quiet_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise TopologyInvalid(f"{name} is {value!r}; it must be a number above 0")
        if not 0 < self.max_down_share < 1:
            raise TopologyInvalid(
                f"max_down_share is {self.max_down_share!r}; it must be above 0 and below 1"
            )

    def max_down(self, shards: int) -> int:
        """How many of so many shards may be down at the same time."""
        return max(1, int(shards * self.max_down_share + 1e-9))


@dataclass(frozen=True, slots=True)
class View:
    """What one observer says: the shards that it cannot reach."""

    observer: str
    age_s: float
    unreachable: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a shard was judged, or not yet: what a person wants to see afterwards."""

    shard: str
    for_s: float  # how long it has been out of reach, or well
    reason: str  # what the last attempt to reach it said
    observers: int  # with a fresh view, the judging one included
    without: tuple[str, ...]  # those of them that cannot reach it
    reached: bool = False  # by the one who judges

    @property
    def agreed(self) -> bool:
        return 2 * len(self.without) > self.observers

    @property
    def disputed(self) -> bool:
        """Whether more than a few cannot reach it."""
        return len(self.without) >= 2 and 4 * len(self.without) >= self.observers

    def __str__(self) -> str:
        said = f"{len(self.without)} of {self.observers} observers cannot reach it"
        if self.reached:
            return f"{self.shard}: {said}, the one who judges can"
        return f"{self.shard}: out of reach for {self.for_s:.1f} s ({self.reason}); {said}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What should be done now."""

    down: tuple[Evidence, ...] = ()  # to be marked as down, all at once
    back: tuple[Evidence, ...] = ()  # may come back
    suspected: tuple[Evidence, ...] = ()  # out of reach, and not to be marked
    withheld: str | None = None  # why nothing is marked although shards are lost
    #: Some cannot reach them, and they stay: most can, so it is not the shards.
    left: tuple[Evidence, ...] = ()


@dataclass(slots=True)
class _Record:
    """One shard, as the judging observer sees it."""

    reachable: bool
    since: float
    seen: float
    reason: str


@dataclass(slots=True)
class Detector:
    """Collects what one observer sees; times are seconds of one monotonic clock."""

    name: str
    limits: Limits = field(default_factory=Limits)
    _records: dict[str, _Record] = field(default_factory=dict)

    def observe(
        self, shard: str, *, reachable: bool, began: float, now: float, reason: str = ""
    ) -> None:
        """An attempt to reach the shard that began and ended at these times."""
        record = self._records.get(shard)
        unbroken = record is not None and began - record.seen <= self.limits.gap_s
        if record is None or not unbroken or record.reachable is not reachable:
            self._records[shard] = _Record(reachable, began, now, reason)
        else:
            record.seen, record.reason = now, reason

    def unreachable(self) -> frozenset[str]:
        """What this observer tells the others."""
        return frozenset(shard for shard, seen in self._records.items() if not seen.reachable)

    def forget(self, shards: Iterable[str]) -> None:
        """Shards that are no more."""
        for shard in shards:
            self._records.pop(shard, None)

    def judge(self, topology: Topology, views: Iterable[View], now: float) -> Judgement:
        """What the observations say about the topology's shards."""
        fresh = [view for view in views if view.age_s <= self.limits.fresh_s]
        down = {shard.id for shard in topology.shards if shard.state is ShardState.DOWN}
        failing = []
        back = []
        left = []
        for shard in topology.shards:
            record = self._records.get(shard.id)
            # A probe that hangs is no news: what was seen last must be from just now.
            if record is None or now - record.seen > self.limits.gap_s:
                continue
            evidence = self._evidence(shard.id, record, fresh, now)
            if shard.id not in down and not record.reachable:
                failing.append(evidence)
            if shard.id not in down and evidence.reached and evidence.disputed:
                left.append(evidence)
            if shard.id in down and record.reachable and evidence.for_s >= self.limits.quiet_s:
                back.append(evidence)
        left += [e for e in failing if not e.agreed and e.for_s >= self.limits.leave_after_s]
        lost = [e for e in failing if e.agreed and e.for_s >= self.limits.down_after_s]
        withheld = self._objection(topology, down, failing) if lost else None
        marked = () if withheld else tuple(lost)
        return Judgement(
            down=marked,
            back=tuple(back),
            suspected=tuple(e for e in failing if e not in marked),
            withheld=withheld,
            left=tuple(left),
        )

    def _evidence(self, shard: str, record: _Record, fresh: list[View], now: float) -> Evidence:
        without = [view.observer for view in fresh if shard in view.unreachable]
        if not record.reachable:
            without.append(self.name)
        observers = 1 + len(fresh)
        return Evidence(
            shard, now - record.since, record.reason, observers, tuple(without), record.reachable
        )

    def _objection(self, topology: Topology, down: set[str], failing: list[Evidence]) -> str | None:
        """Why none may be marked: all that are out of reach count, not only those judged lost."""
        total, out = len(topology.shards), len(down) + len(failing)
        allowed = self.limits.max_down(total)
        if out > allowed or out >= total:
            return (
                f"{out} of {total} shards would be down, and at most {min(allowed, total - 1)} "
                "may be: look whether this host is cut off"
            )
        return None
