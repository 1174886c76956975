"""Named combinations of one workload and some faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chaos.faults import FAULTS
from chaos.generators import Rhythm
from chaos.workloads import WORKLOADS

CALM: Final = Rhythm()
STORM: Final = Rhythm(duration_s=(0.3, 2.5), pause_s=(0.5, 2.0), quiet_s=3.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run: a workload and the faults that strike it, in this rhythm."""

    name: str
    workload: str
    faults: tuple[str, ...]
    rhythm: Rhythm = CALM

    @property
    def expects_unknown(self) -> bool:
        return len(self.faults) == 1 and FAULTS[self.faults[0]].expects_unknown

    @property
    def needs_replica(self) -> bool:
        return any(FAULTS[fault].needs_replica for fault in self.faults)

    @property
    def invariants(self) -> tuple[str, ...]:
        promised = WORKLOADS[self.workload].invariants
        return tuple(one for one in promised if self.faults or one != "P6")


def _all() -> list[Scenario]:
    found = []
    for workload in WORKLOADS:
        found.append(Scenario(f"{workload}/calm", workload, ()))
        found += [Scenario(f"{workload}/{fault}", workload, (fault,)) for fault in FAULTS]
        found.append(Scenario(f"{workload}/storm", workload, tuple(FAULTS), STORM))
    return found


#: Name -> scenario: each workload without faults, with each fault, and with all of them mixed.
SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _all()}

#: Less than a minute in all; part of the tests.
SMOKE: Final = ("mixed/reply-lost", "normal/stale-rdb", "groups/shard-kill")
