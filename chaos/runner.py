"""Runs a scenario: the only place that knows what time it is in a run."""

from __future__ import annotations

import asyncio
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random

from chaos.environments.control import CommandFailed
from chaos.environments.local import WORKER, LocalCluster, Plan
from chaos.faults import FAULTS
from chaos.generators import Strike, schedule
from chaos.history import Event, Header, Window, event_of
from chaos.scenarios import Scenario
from chaos.workloads import WORKLOADS

# Short, so that a short run holds many timeouts. The other settings are the layer's defaults.
TIMEOUT_S = 1.0
CONFIG = {"timeout": TIMEOUT_S, "connect_timeout": 0.5, "capacity": 2000, "prefix": "chaos"}
DEFAULT_EXPIRY_S = 60.0
END_WITHIN_S = 20.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A scenario with all that makes it happen again."""

    scenario: Scenario
    seed: int
    seconds: float
    shards: int = 3
    processes: int = 3
    worker: Sequence[str] = WORKER
    drain_s: float = 6.0  # at the end nothing is written and everything is read

    def strikes(self) -> tuple[Strike, ...]:
        """The schedule; a function of scenario, seed, seconds and numbers alone."""
        return schedule(
            self.scenario.faults,
            Random(f"{self.seed}/{self.scenario.name}/schedule"),
            seconds=self.seconds,
            shards=self.shards,
            processes=self.processes,
            rhythm=self.scenario.rhythm,
        )

    @property
    def settings(self) -> dict[str, object]:
        return {**CONFIG, **WORKLOADS[self.scenario.workload].config}


async def run(what: Run, tell: Tell) -> list[Event]:
    """Every event of a run; `tell` hears of its progress.

    EnvironmentFailed if servers or processes did not do what they were told.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        plan = Plan(
            workload=what.scenario.workload,
            seed=f"{what.seed}/{what.scenario.name}",
            config=what.settings,
            shards=what.shards,
            processes=what.processes,
            replica=what.scenario.needs_replica,
            worker=what.worker,
        )
        async with LocalCluster(plan, Path(directory)) as cluster:
            return await _run_on(cluster, what, tell)


async def _run_on(cluster: LocalCluster, what: Run, tell: Tell) -> list[Event]:
    began_s = time.monotonic() + 0.2
    quiet_s = began_s + what.seconds
    ended_s = quiet_s + what.drain_s
    cluster.begin(began_s=began_s, quiet_s=quiet_s, ended_s=ended_s)
    async with asyncio.TaskGroup() as tasks:
        striking = [
            tasks.create_task(_strike(cluster, what, strike, began_s, tell))
            for strike in what.strikes()
        ]
    left_s = ended_s - time.monotonic() + END_WITHIN_S
    for process in cluster.processes:
        await process.ended(left_s)
    audits = [await shard.audit() for shard in cluster.shards]
    header = _header(what, began_s, quiet_s, ended_s)
    lives = [life for process in cluster.processes for life in process.lives]
    windows = [task.result() for task in striking]
    return [
        event_of(header),
        *cluster.recorded(),
        *map(event_of, (*windows, *lives, *audits)),
    ]


async def _strike(
    cluster: LocalCluster, what: Run, strike: Strike, began_s: float, tell: Tell
) -> Window:
    """One fault from its beginning to its cure."""
    chance = Random(f"{what.seed}/{strike.at_s}/{strike.fault}")
    fault = FAULTS[strike.fault](cluster, strike, chance)
    await _sleep_until(began_s + strike.at_s)
    shards, processes = fault.shards, fault.processes
    tell(f"{strike.at_s:6.1f} s  {strike.fault} on {_names(shards)}, {_names(processes)}")
    struck_s = time.monotonic()
    try:
        await fault.inject()
        try:
            await _sleep_until(began_s + strike.at_s + strike.duration_s)
        finally:
            await fault.heal()
    except CommandFailed as error:
        # In a storm the shard may be dead or frozen by another fault, which also undoes this one.
        tell(f"          {strike.fault} could not be done: {error}")
    healed_s = time.monotonic()
    tell(f"{healed_s - began_s:6.1f} s  {strike.fault} healed, struck {fault.effect} times")
    return Window(strike.fault, struck_s, healed_s, shards, processes, fault.effect)


def _names(names: Sequence[str]) -> str:
    return " ".join(names) or "all"


async def _sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))


def _header(what: Run, began_s: float, quiet_s: float, ended_s: float) -> Header:
    settings = what.settings
    return Header(
        scenario=what.scenario.name,
        seed=what.seed,
        began_s=began_s,
        quiet_s=quiet_s,
        ended_s=ended_s,
        timeout_s=TIMEOUT_S,
        expiry_s=float(str(settings.get("expiry", DEFAULT_EXPIRY_S))),
        invariants=what.scenario.invariants,
        expects_unknown=what.scenario.expects_unknown,
        versions={
            "cluster-layer": version("cluster-layer"),
            "redis-py": version("redis"),
            "python": platform.python_version(),
        },
    )
