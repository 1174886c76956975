"""Faults that strike a running cluster one after the other; after each, everything works again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from random import Random

from chaos.environments.base import Plan, begin, recorded
from chaos.environments.cluster import Cluster
from chaos.environments.local import WORKER
from chaos.faults import FAULTS
from chaos.faults.base import Fault
from chaos.generators import Strike
from chaos.history import Event
from tests.support.waiting import eventually_async

STRIKES_S = 0.6
LONG_STRIKES_S = 2.2  # of those that need their time
LIVES_S = 150.0
ENOUGH = 30  # writes of a process, of some 50 per second


def plan(**more: object) -> Plan:
    config = {"timeout": 1.0, "connect_timeout": 0.5, "capacity": 2000}
    return Plan("mixed", "1", config, WORKER, processes=2, **more)  # type: ignore[arg-type]


async def strike(cluster: Cluster, name: str, index: int) -> int:
    """How often the fault struck."""
    where = Strike(name, 0.0, 0.0, index % 3, index % 2, everywhere=index % 2 == 0)
    fault = FAULTS[name](cluster, where, Random(name))
    await fault.inject()
    await asyncio.sleep(strikes_s(fault))
    await fault.heal()
    return fault.effect


def strikes_s(fault: Fault) -> float:
    if fault.rehomed_within_s:
        return fault.rehomed_within_s
    planned = fault.invariant == "P5"  # they take their time by themselves
    return STRIKES_S if planned or fault.duration_s is None else LONG_STRIKES_S


def missing_writes(events: list[Event], processes: set[str], since_s: float) -> str:
    """What has not been seen yet: enough acknowledged writes, and one wherever some were tried.

    A shard that gets other slots than it had may have none of the few names that are written to.
    """
    begun = {
        event["id"]: (event["process"].partition(".")[0], event["shard"])  # without its life
        for event in events
        if event["e"] == "invoke" and event["invoked_s"] > since_s
    }
    written = Counter(
        begun[event["id"]]
        for event in events
        if event["e"] == "complete" and event["outcome"] == "ok" and event["id"] in begun
    )
    tried = {shard for _, shard in begun.values()}
    for process in sorted(processes):
        few = sum(written[process, shard] for shard in tried)
        if few < ENOUGH:
            return f"{process} has written {few} times"
        for shard in sorted(tried):
            if not written[process, shard]:
                return f"{process} has not written to {shard}"
    return ""


async def everybody_writes_everywhere(cluster: Cluster, after: str) -> None:
    """Each process has written to each shard since now; `after` says what befell it before."""
    now_s = time.monotonic()
    processes = {process.name for process in cluster.processes}
    missing = ""

    def all_written() -> bool:
        nonlocal missing
        missing = missing_writes(recorded(cluster.directory), processes, now_s)
        return not missing

    try:
        await eventually_async(all_written)
    except AssertionError as error:
        raise AssertionError(f"after {after}, {missing}") from error


async def strike_all(cluster: Cluster, names: Sequence[str]) -> None:
    """Each fault must have struck, and each process writes to each shard again after it."""
    now_s = time.monotonic()
    times = {"began_s": now_s, "quiet_s": now_s + LIVES_S, "ended_s": now_s + LIVES_S}
    begin(cluster.directory, **times)
    await everybody_writes_everywhere(cluster, "the start")
    for index, name in enumerate(names):
        assert await strike(cluster, name, index) > 0, name
        await everybody_writes_everywhere(cluster, name)
