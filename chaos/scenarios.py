"""Named combinations of one workload and some faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from chaos.environments.base import Need
from chaos.faults import FAULTS
from chaos.generators import Rhythm
from chaos.workloads import WORKLOADS

CALM: Final = Rhythm()
STORM: Final = Rhythm(duration_s=(0.3, 2.5), pause_s=(0.5, 2.0), quiet_s=3.0)
STATIC: Final = Rhythm(duration_s=(0.3, 1.0), pause_s=(0.8, 1.5), quiet_s=2.0, in_turn=True)
#: A change takes some seconds, and so does the way back.
CHANGING: Final = Rhythm(duration_s=(4.0, 6.0), pause_s=(11.0, 12.0), quiet_s=5.0)

SKEWED: Final = "skewed-shards"  # what the window of such a run is called


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run: a workload and the faults that strike it, in this rhythm.

    `skewed`: the shards' clocks are days apart from the beginning.
    """

    name: str
    workload: str
    faults: tuple[str, ...]
    rhythm: Rhythm = CALM
    skewed: bool = False

    def within(self, provides: frozenset[Need], *, others: bool) -> Scenario:
        """Of a mixture, the part that an environment can do; anything else is left as it is.

        `others`: somebody uses the same shards, and is not to be disturbed.
        """
        if len(self.faults) < 2:
            return self
        possible = tuple(
            name
            for name in self.faults
            if FAULTS[name].needs <= provides and not (others and FAULTS[name].disturbs_others)
        )
        return replace(self, faults=possible)

    @property
    def expects_unknown(self) -> bool:
        return len(self.faults) == 1 and FAULTS[self.faults[0]].expects_unknown

    @property
    def needs(self) -> frozenset[Need]:
        """What an environment has to provide."""
        clocks = {Need.CLOCKS} if self.skewed else set()
        return frozenset(clocks).union(*(FAULTS[fault].needs for fault in self.faults))

    @property
    def needs_replica(self) -> bool:
        return any(FAULTS[fault].needs_replica for fault in self.faults)

    @property
    def needs_aof(self) -> bool:
        return any(FAULTS[fault].needs_aof for fault in self.faults)

    @property
    def zookeeper_servers(self) -> int:
        counts = [
            FAULTS[fault].zookeeper_servers
            for fault in self.faults
            if Need.ZOOKEEPER in FAULTS[fault].needs
        ]
        return max(counts, default=0)

    @property
    def spares(self) -> int:
        return max((FAULTS[fault].spares for fault in self.faults), default=0)

    @property
    def monitors(self) -> int:
        return max((FAULTS[fault].monitors for fault in self.faults), default=0)

    @property
    def disturbs_others(self) -> tuple[str, ...]:
        """The faults that hurt also those who use the same shards for real."""
        return tuple(fault for fault in self.faults if FAULTS[fault].disturbs_others)

    @property
    def durations(self) -> Mapping[str, tuple[float, float]]:
        own = {fault: FAULTS[fault].duration_s for fault in self.faults}
        return {fault: duration_s for fault, duration_s in own.items() if duration_s is not None}

    def invariants(self, faults: Iterable[str]) -> tuple[str, ...]:
        """Those that can be broken when these of its faults strike."""
        struck = [FAULTS[fault].invariant for fault in faults]
        promised = list(WORKLOADS[self.workload].invariants)
        if "" not in struck:
            promised.remove("P6")  # nothing that has to heal
        promised += set(struck) - {""}
        promised += ["P10"] if self.skewed else []
        return tuple(sorted(set(promised), key=_number))


def _number(invariant: str) -> int:
    return int(invariant.removeprefix("P"))


_STORMY: Final = tuple(name for name, fault in FAULTS.items() if fault.in_storms)
_CHANGES: Final = tuple(name for name, fault in FAULTS.items() if fault.invariant == "P5")
_ZOOKEEPER: Final = tuple(name for name, fault in FAULTS.items() if fault.invariant == "P7")
#: What planned changes go on under: links and processes fail, shards stay.
_AMID_CHANGES: Final = ("latency", "sliced", "reset-storm", "reply-lost", "process-kill")


_PLAIN_CHANGES: Final = ("shard-add", "shard-weight", "shard-drain", "shard-remove")


def _of(workload: str) -> Iterable[Scenario]:
    yield Scenario(f"{workload}/calm", workload, ())
    yield Scenario(f"{workload}/skewed", workload, (), skewed=True)
    for name, fault in FAULTS.items():
        rhythm = CHANGING if Need.CHANGES in fault.needs else CALM
        yield Scenario(f"{workload}/{name}", workload, (name,), rhythm)
    yield Scenario(f"{workload}/static", workload, ("zookeeper-lost", "process-kill"), STATIC)
    yield Scenario(f"{workload}/storm", workload, _STORMY, STORM)
    yield Scenario(f"{workload}/zookeeper-storm", workload, (*_STORMY, *_ZOOKEEPER), STORM)
    yield Scenario(f"{workload}/changes", workload, _PLAIN_CHANGES, CHANGING)
    yield Scenario(f"{workload}/change-storm", workload, (*_AMID_CHANGES, *_CHANGES), STORM)


#: Name -> scenario: each workload without faults, with each fault, and with all of them mixed.
SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario for workload in WORKLOADS for scenario in _of(workload)
}


def _all() -> tuple[str, ...]:
    """Every workload without faults and in storms, and every fault in two workloads."""
    workloads = list(WORKLOADS)
    names = [f"{workload}/{kind}" for workload in workloads for kind in ("calm", "storm")]
    names += ["mixed/static", "normal/static", "mixed/skewed", "expiry/skewed"]
    names += ["groups/zookeeper-storm", "churn/zookeeper-storm"]
    names += ["volume/changes", "mixed/change-storm", "normal/change-storm", "groups/change-storm"]
    for index, fault in enumerate(FAULTS):
        # Far apart, so that in the end each workload meets all kinds of faults.
        pair = (workloads[index % len(workloads)], workloads[(index + 4) % len(workloads)])
        names += [f"{workload}/{fault}" for workload in pair]
    return tuple(names)


#: What `run all` runs.
ALL: Final = _all()

#: Less than three minutes in all; part of the tests.
SMOKE: Final = (
    "mixed/reply-lost",
    "normal/stale-rdb",
    "groups/shard-kill",
    "mixed/clock-step",
    "direct/upgrade",
    "direct/zookeeper-lost",
    "mixed/shard-add",
    "groups/shard-lost",
)
