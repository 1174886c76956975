"""Runs a scenario: the only place that knows what time it is in a run."""

from __future__ import annotations

import asyncio
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any

from chaos.environments.base import OPERATOR, EnvironmentFailed, Plan, begin, recorded
from chaos.environments.cluster import Cluster
from chaos.environments.control import CommandFailed
from chaos.environments.local import WORKER, LocalCluster
from chaos.faults import FAULTS
from chaos.faults.base import Fault
from chaos.generators import Strike, schedule
from chaos.history import Event, Header, Stall, Window, event_of
from chaos.scenarios import SKEWED, Scenario
from chaos.workloads import WORKLOADS
from topology.errors import ClusterError

# Short, so that a short run holds many timeouts. The other settings are the layer's defaults.
TIMEOUT_S = 1.0
CONFIG = {"timeout": TIMEOUT_S, "connect_timeout": 0.5, "capacity": 2000}
DEFAULT_EXPIRY_S = 60.0
END_WITHIN_S = 20.0
DISTRIBUTIONS = ("cluster-layer", "redis", "channels_redis", "channels")

Tell = Callable[[str], None]
#: Makes the environment of a run in a directory.
MakeCluster = Callable[[Plan, Path], Cluster]


class NotPossible(ClusterError):
    """A scenario needs what the environment does not provide."""


@dataclass(frozen=True, slots=True)
class Run:
    """A scenario with all that makes it happen again."""

    scenario: Scenario
    seed: int
    seconds: float
    shards: int = 3
    processes: int = 3
    layer: str = "cluster-layer"
    worker: Sequence[str] = WORKER
    operator: Sequence[str] = OPERATOR
    drain_s: float = 6.0  # at the end nothing is written and everything is read
    make: MakeCluster = LocalCluster
    config: Mapping[str, Any] = field(default_factory=dict)

    def strikes(self) -> tuple[Strike, ...]:
        """The schedule; a function of scenario, seed, seconds and numbers alone."""
        return schedule(
            self.scenario.faults,
            Random(f"{self.seed}/{self.scenario.name}/schedule"),
            seconds=self.seconds,
            shards=self.shards,
            processes=self.processes,
            rhythm=self.scenario.rhythm,
            durations=self.scenario.durations,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {**CONFIG, **WORKLOADS[self.scenario.workload].config, **self.config}

    @property
    def plan(self) -> Plan:
        return Plan(
            workload=self.scenario.workload,
            seed=f"{self.seed}/{self.scenario.name}",
            config=self.settings,
            worker=self.worker,
            shards=self.shards,
            processes=self.processes,
            replica=self.scenario.needs_replica,
            aof=self.scenario.needs_aof,
            clocks=self.scenario.skewed or "shard-clock" in self.scenario.faults,
            skewed=self.scenario.skewed,
            zookeeper=self.scenario.zookeeper_servers,
            spares=self.scenario.spares,
            monitors=self.scenario.monitors,
            layer=self.layer,
            operator=self.operator,
        )


async def run(what: Run, tell: Tell) -> list[Event]:
    """Every event of a run; `tell` hears of its progress.

    NotPossible; EnvironmentFailed if servers or processes did not do what they were told.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        cluster = what.make(what.plan, Path(directory))
        scenario = what.scenario.within(cluster.provides, others=cluster.is_shared)
        if scenario != what.scenario:
            what = replace(what, scenario=scenario)
            cluster = what.make(what.plan, Path(directory))
        lacking = what.scenario.needs - cluster.provides
        if lacking:
            raise NotPossible(
                f"{what.scenario.name} needs {', '.join(sorted(lacking))}; the environment "
                f"{cluster.name!r} does not provide that"
            )
        async with cluster:
            return await _run_on(cluster, what, tell)


async def _run_on(cluster: Cluster, what: Run, tell: Tell) -> list[Event]:
    began_s = time.monotonic() + 0.2
    quiet_s = began_s + what.seconds
    ended_s = quiet_s + what.drain_s
    begin(cluster.directory, began_s=began_s, quiet_s=quiet_s, ended_s=ended_s)
    try:
        async with asyncio.TaskGroup() as tasks:
            striking = [
                tasks.create_task(_strike(cluster, what, strike, began_s, tell))
                for strike in what.strikes()
            ]
    except* ClusterError as failures:
        raise EnvironmentFailed("; ".join(map(str, failures.exceptions))) from failures
    left_s = ended_s - time.monotonic() + END_WITHIN_S
    for process in cluster.processes:
        await process.ended(left_s)
    audits = await cluster.audits()
    header = _header(cluster, what, began_s, quiet_s, ended_s)
    lives = [life for process in cluster.processes for life in process.lives]
    windows = [window for task in striking for window in task.result()[0]]
    if what.scenario.skewed:
        windows.append(Window(SKEWED, began_s, ended_s, effect=1, invariant="P10"))
    stalls = [stall for task in striking for stall in task.result()[1]]
    return [
        event_of(header),
        *recorded(cluster.directory),
        *map(event_of, (*windows, *stalls, *lives, *audits)),
    ]


async def _strike(
    cluster: Cluster, what: Run, strike: Strike, began_s: float, tell: Tell
) -> tuple[Sequence[Window], Sequence[Stall]]:
    """One fault from its beginning to its cure."""
    chance = Random(f"{what.seed}/{strike.at_s}/{strike.fault}")
    fault = FAULTS[strike.fault](cluster, strike, chance)
    await _sleep_until(began_s + strike.at_s)
    shards, processes = fault.shards, fault.processes
    tell(f"{strike.at_s:6.1f} s  {strike.fault} on {_names(shards)}, {_names(processes)}")
    struck_s = time.monotonic()
    try:
        await _inject_and_heal(fault, began_s + strike.at_s + strike.duration_s)
    except CommandFailed as error:
        # In a storm the shard may be dead or frozen by another fault, which also undoes this one.
        tell(f"          {strike.fault} could not be done: {error}")
    healed_s = time.monotonic()
    tell(f"{healed_s - began_s:6.1f} s  {strike.fault} healed, struck {fault.effect} times")
    return fault.windows(struck_s, healed_s), fault.stalls


async def _inject_and_heal(fault: Fault, until_s: float) -> None:
    await fault.inject()
    try:
        await _sleep_until(until_s)
    finally:
        await fault.heal()


def _names(names: Sequence[str]) -> str:
    return " ".join(names) or "all"


async def _sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))


def _header(cluster: Cluster, what: Run, began_s: float, quiet_s: float, ended_s: float) -> Header:
    settings = what.settings
    return Header(
        scenario=what.scenario.name,
        seed=what.seed,
        began_s=began_s,
        quiet_s=quiet_s,
        ended_s=ended_s,
        timeout_s=float(settings["timeout"]),
        expiry_s=float(settings.get("expiry", DEFAULT_EXPIRY_S)),
        invariants=what.scenario.invariants(strike.fault for strike in what.strikes()),
        expects_unknown=what.scenario.expects_unknown,
        versions=_versions(),
        layer=what.layer,
        environment=cluster.name,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
