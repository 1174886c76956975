"""Watches the shards: marks those that are lost as down, and takes them back when they are well.

Run two or three. Each one probes every shard and tells the shards what it cannot reach, as
processes do; the one that holds the lock also judges (``health``) and decides. The lock is a
courtesy: what keeps two leaders from deciding twice is the epoch that a decision expects. So when a
leader dies together with a shard, the others need not wait until its lock has expired: who sees
that it reports no more marks the shard as down in its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Final

from topology.coordinator import Coordinator
from topology.decisions import Decisions
from topology.errors import ClusterError, LockHeld, StaleEpoch
from topology.health import Detector, Evidence, Judgement, Limits, View
from topology.history import Holder, Kind
from topology.model import Change, Operator, Shard, ShardState, Topology
from topology.planning import plan
from topology.ports import Cluster, Lock, OperatorStore
from topology.progress import Outcome
from topology.transitions import Stage, stage_of

_log = logging.getLogger(__name__)

#: As whom monitors decide; what they have begun, another monitor goes on with.
MONITOR: Final = "cluster-layer monitor"
LEADER_LOCK: Final = "monitor"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a monitor does what, in seconds; and how fast it takes shards back."""

    probe_every_s: float = 0.4
    probe_timeout_s: float = 0.8
    report_every_s: float = 1.0
    ask_timeout_s: float = 2.0  # of a shard that is asked what all others reach
    judge_every_s: float = 0.2
    read_every_s: float = 1.0  # the topology; and whether the lock is still held
    silent_after_s: float = 2.5  # a leader that has not reported for so long does nothing
    look_every_s: float = 2.5  # at what all others reach, also when nothing is lost
    returns: bool = True  # take shards back that the monitors have marked as down
    return_step: int = 256  # slots per round


class What(Enum):
    """What a monitor tells of."""

    LEADS = "leads"
    FOLLOWS = "follows"
    STANDS_IN = "stands in"
    SUSPECTS = "suspects"
    WITHHOLDS = "withholds"
    LEAVES_ALONE = "leaves alone"
    MARKS_DOWN = "marks down"
    TAKES_BACK = "takes back"
    HAS_TAKEN_BACK = "has done it"
    GIVES_UP = "has given up"
    IS_IN_TROUBLE = "is in trouble"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that whoever watches a monitor wants to know."""

    what: What
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Monitor:
    """One monitor; ``cluster`` is its own view of the shards, where it reports under ``name``."""

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        *,
        name: str,
        host: str,
        pid: int,
        limits: Limits | None = None,
        schedule: Schedule | None = None,
        tell: Callable[[Event], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leads = False
        self._store = store
        self._cluster = cluster
        self._limits = limits or Limits()
        self._schedule = schedule or Schedule()
        self._tell = tell
        self._clock = clock
        self._decisions = Decisions(store, Operator(MONITOR, host, pid))
        self._detector = Detector(name, self._limits)
        self._reasons: dict[str, str] = {}  # shard -> why it is out of reach
        self._topology: Topology | None = None
        self._lock: Lock | None = None
        self._leader: Operator | None = None  # the other one who holds the lock
        self._ages: dict[tuple[str, int], float] = {}  # of other monitors' reports, as of the views
        self._said: dict[What, str] = {}  # so that a condition is told once
        self._views: list[View] = []
        self._views_until = 0.0  # asking 10,000 processes takes its time
        self._look_at = 0.0
        self._disputed: frozenset[str] = frozenset()  # at the last look
        self._left_alone = 0  # epoch of a change that an operator has paused
        self._tasks: asyncio.TaskGroup
        self._driving: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # what is to be reported

    async def run(self) -> None:
        """Until it is cancelled; the lock is released then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._repeat(self._read, self._schedule.read_every_s))
                tasks.create_task(self._repeat(self._probe, self._schedule.probe_every_s))
                tasks.create_task(self._report())
                tasks.create_task(self._repeat(self._lead, self._schedule.judge_every_s))
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if self._lock is not None:
            await asyncio.to_thread(self._lock.release)

    async def _repeat(self, work: Callable[[], Any], every_s: float) -> None:
        """From one beginning to the next it takes ``every_s``, or as long as the work does."""
        while True:
            began = self._clock()
            try:
                await work()
            except ClusterError as error:
                self._say(Event(What.IS_IN_TROUBLE, str(error)))
            await asyncio.sleep(max(0.0, began + every_s - self._clock()))

    # -- what every monitor does

    async def _read(self) -> None:
        topology = await self._decisions.read()
        self._learn(topology)
        self._said.pop(What.IS_IN_TROUBLE, None)
        if self._lock is not None and not await asyncio.to_thread(self._lock.held):
            self._follow("the lock is lost")

    def _learn(self, topology: Topology) -> None:
        known = {shard.id for shard in topology.shards}
        if self._topology is not None:
            self._detector.forget(s.id for s in self._topology.shards if s.id not in known)
        self._topology = topology

    async def _probe(self) -> None:
        """Look at all shards once, those that are down included."""
        if self._topology is None:
            return
        before = self._detector.unreachable()
        await asyncio.gather(*(self._probe_one(shard) for shard in self._topology.shards))
        if self._detector.unreachable() != before:
            self._changed.set()

    async def _probe_one(self, shard: Shard) -> None:
        began = self._clock()
        reason = await self._cluster.probe(shard, self._schedule.probe_timeout_s)
        self._detector.observe(
            shard.id,
            reachable=reason is None,
            began=began,
            now=self._clock(),
            reason=reason or "",
        )
        self._reasons[shard.id] = reason or ""

    async def _report(self) -> None:
        """Tell the shards what is out of reach from here: at once when it changes, else in turn."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._schedule.report_every_s):
                    await self._changed.wait()
            self._changed.clear()
            unreachable = self._detector.unreachable()
            await self._cluster.report({shard: self._reasons[shard] for shard in unreachable})

    # -- what the leader does

    async def _lead(self) -> None:
        if self._topology is None:
            return
        if not await self._is_leader():
            await self._stand_in()
            return
        judgement = await self._judged()
        if judgement.withheld is not None:
            await self._withhold(judgement)
        elif judgement.down:
            await self._mark_down(judgement.down)
        elif judgement.suspected:
            shards = ", ".join(sorted(evidence.shard for evidence in judgement.suspected))
            self._say(Event(What.SUSPECTS, shards, _shown(judgement.suspected)))
        else:
            # The next time it is news again.
            self._said.pop(What.SUSPECTS, None)
            self._said.pop(What.WITHHOLDS, None)
        if self._driving is None or self._driving.done():
            await self._take_back(judgement.back)

    async def _is_leader(self) -> bool:
        if self._lock is None:
            try:
                self._lock = await self._decisions.take(LEADER_LOCK)
            except LockHeld as error:
                holder = error.holder
                self._leader = holder.operator if isinstance(holder, Holder) else None
                self._say(Event(What.FOLLOWS, f"{error.holder or 'another monitor'} leads"))
                return False
            self._say(Event(What.LEADS, self._detector.name))
        self.leads = True
        return True

    def _follow(self, why: str) -> None:
        self._lock, self.leads = None, False
        self._say(Event(What.FOLLOWS, why))

    async def _stand_in(self) -> None:
        """Mark lost shards as down in the place of a leader who would have done so by now."""
        judgement = await self._judged(leads=False)
        if not judgement.down or self._leader is None:
            return
        silent_s = self._ages.get((self._leader.host, self._leader.pid))
        if silent_s is None or silent_s >= self._schedule.silent_after_s:
            since = "" if silent_s is None else f" for {silent_s:.1f} s"
            self._say(Event(What.STANDS_IN, f"{self._leader} leads and has said nothing{since}"))
            await self._mark_down(judgement.down)

    async def _judged(self, *, leads: bool = True) -> Judgement:
        """With the views of all others, which are asked for only when there is something to ask."""
        topology = self._topology
        assert topology is not None  # noqa: S101 - seen by the caller
        alone = self._detector.judge(topology, (), self._clock())
        looks = leads and self._clock() >= self._look_at
        if not alone.down and not looks:  # nothing to be marked, whatever the others say
            return alone
        topology = await self._decisions.read()
        self._learn(topology)
        if self._clock() >= self._views_until:
            self._views = await self._others()
        judgement = self._detector.judge(topology, self._views, self._clock())
        if looks:
            self._look_at = self._clock() + self._schedule.look_every_s
            await self._leave_alone(topology, judgement.left)
        return judgement

    async def _leave_alone(self, topology: Topology, disputed: Sequence[Evidence]) -> None:
        """Tell of shards that some cannot reach, if it was so at the last look, too."""
        before, self._disputed = self._disputed, frozenset(one.shard for one in disputed)
        left = [one for one in disputed if one.shard in before]
        if not left:
            self._said.pop(What.LEAVES_ALONE, None)
            return
        shards = ", ".join(sorted(one.shard for one in left))
        if self._say(Event(What.LEAVES_ALONE, shards, _shown(left))):
            reason = "; ".join(map(str, left))
            await self._decisions.record(
                Kind.LEFT_ALONE, topology, reason[:500], evidence={"evidence": _shown(left)}
            )

    async def _others(self) -> list[View]:
        began = self._clock()
        without = self._detector.unreachable()
        reports = await self._cluster.processes(
            without=without, within_s=self._schedule.ask_timeout_s
        )
        now = self._clock()
        # A shard that fell silent meanwhile has kept us waiting; the next time it is not asked.
        silent = self._detector.unreachable() - without
        self._views_until = now if silent else now + 3 * (now - began)
        self._ages = {
            (report.host, report.pid): report.age_s
            for report in reports.values()
            if report.role == "monitor"
        }
        return [
            View(report.id, report.age_s, frozenset(report.unreachable))
            for report in reports.values()
            if (report.alive or report.role == "monitor") and report.id != self._detector.name
        ]

    async def _mark_down(self, lost: Sequence[Evidence]) -> None:
        topology = self._topology
        assert topology is not None  # noqa: S101 - seen by the caller
        reason = "; ".join(map(str, lost))
        shards = [evidence.shard for evidence in lost]
        try:
            after = await self._decisions.rehome(self._cluster, topology, shards, reason[:500])
        except StaleEpoch:
            return  # judged by what was; the next look judges by what is
        self._learn(after)
        self._say(Event(What.MARKS_DOWN, reason, _shown(lost)))
        # A shard that is slow to take it in must not keep us from judging the next one.
        self._tasks.create_task(self._install(after))
        evidence = {"shards": shards, "evidence": _shown(lost)}
        await self._decisions.record(Kind.MARKED_DOWN, after, reason, evidence=evidence)

    async def _withhold(self, judgement: Judgement) -> None:
        topology, reason = self._topology, judgement.withheld
        assert topology is not None and reason is not None  # noqa: S101, PT018 - seen by the caller
        event = Event(What.WITHHOLDS, reason, _shown(judgement.suspected))
        if self._say(event):
            await self._decisions.record(
                Kind.WITHHELD, topology, reason, evidence={"evidence": _shown(judgement.suspected)}
            )

    async def _install(self, topology: Topology) -> None:
        up = [shard.id for shard in topology.shards if shard.state is not ShardState.DOWN]
        try:
            missing = await self._cluster.install(topology, up)
        except ClusterError as error:
            missing = {"": str(error)}
        if missing:  # processes tell each other by the other shards
            reasons = "; ".join(f"{shard} {why}" for shard, why in missing.items())
            self._say(Event(What.IS_IN_TROUBLE, f"epoch {topology.epoch} not brought: {reasons}"))

    # -- the way back

    async def _take_back(self, well: Sequence[Evidence]) -> None:
        """Begin to take shards back, or go on with what a monitor has begun."""
        topology = self._topology
        assert topology is not None  # noqa: S101 - seen by the caller
        change = topology.change
        if change is not None:
            if change.operator.user == MONITOR and topology.epoch != self._left_alone:
                self._driving = self._tasks.create_task(self._drive(change))
            return
        if not well or not self._schedule.returns or stage_of(topology) is not Stage.IDLE:
            return
        marked = await self._marked_by_monitors()
        shards = [evidence.shard for evidence in well if evidence.shard in marked]
        if not shards:
            return
        topology = await self._decisions.read()
        wanted = [
            replace(shard, state=ShardState.UP) if shard.id in shards else shard
            for shard in topology.shards
        ]
        summary = f"take back {', '.join(shards)}, well for {well[0].for_s:.0f} s"
        begun = await self._decisions.begin(
            plan(topology, wanted, summary), step=self._schedule.return_step
        )
        self._learn(begun)
        self._say(Event(What.TAKES_BACK, summary, _shown(well)))

    async def _marked_by_monitors(self) -> set[str]:
        """The shards that were last marked as down by a monitor: an operator's wish is kept."""
        marked: dict[str, bool] = {}
        for entry in await self._decisions.history():
            if entry.kind is Kind.MARKED_DOWN:
                for shard in entry.evidence.get("shards", ()):
                    marked[shard] = entry.operator.user == MONITOR
        return {shard for shard, ours in marked.items() if ours}

    async def _drive(self, change: Change) -> None:
        """Drive a monitor's change on, unless an operator has paused it."""
        try:
            if change.paused is not None:
                if await self._paused_by_operator(change):
                    self._left_alone = (await self._decisions.read()).epoch
                    return
                # A shard was lost: what was to go there has another goal now, which is as good.
                await self._decisions.resume()
            outcome = Outcome.PAUSED
            async for progress in Coordinator(self._decisions, self._cluster).drive():
                outcome = progress.outcome or outcome
                for hold in progress.holds:
                    self._say(Event(What.IS_IN_TROUBLE, f"taking back waits for {hold}"))
            topology = await self._decisions.read()
        except ClusterError as error:
            self._say(Event(What.IS_IN_TROUBLE, f"taking back: {error}"))
            return
        self._learn(topology)
        up = {shard.id for shard in topology.shards if shard.state is ShardState.UP}
        done = outcome is Outcome.FINISHED and all(shard.id in up for shard in change.former)
        self._say(Event(What.HAS_TAKEN_BACK if done else What.GIVES_UP, change.summary))

    async def _paused_by_operator(self, change: Change) -> bool:
        """Whether somebody wanted it to pause, and nobody has let it go on since."""
        kinds = [e.kind for e in await self._decisions.history() if e.change == change.id]
        told = [kind for kind in kinds if kind in (Kind.PAUSED, Kind.RESUMED)]
        return bool(told) and told[-1] is Kind.PAUSED

    # -- internals

    def _say(self, event: Event) -> bool:
        """False for a condition that has been told already."""
        if event.what in _CONDITIONS and self._said.get(event.what) == event.text:
            return False
        self._said[event.what] = event.text
        _log.log(
            logging.WARNING if event.what in _WARNINGS else logging.INFO,
            "the monitor %s: %s",
            event.what.value,
            event.text,
        )
        self._tell(event)
        return True


_CONDITIONS: Final = frozenset(
    {What.FOLLOWS, What.SUSPECTS, What.WITHHOLDS, What.LEAVES_ALONE, What.IS_IN_TROUBLE}
)
_WARNINGS: Final = frozenset(
    {What.STANDS_IN, What.WITHHOLDS, What.LEAVES_ALONE, What.MARKS_DOWN, What.IS_IN_TROUBLE}
)


def _shown(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """Evidence by shard, as JSON."""
    return {one.shard: {**asdict(one), "without": list(one.without)} for one in evidence}
