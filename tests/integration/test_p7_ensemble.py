"""P7 under load: a ZooKeeper ensemble loses one server, then all, and comes back.

``OUTAGE_S=300 scripts/test tests/integration/test_p7_ensemble.py -s`` makes it minutes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_layer.embedded import RedisServer
from tests.support.layers import unique_prefix
from tests.support.loads import Load, Shape, verdict_of
from tests.support.waiting import eventually_async
from tests.support.zookeeper import ProxyThread, ZooKeeperCluster, own_ensemble
from topology.model import Shard
from topology.planning import initial_topology

OUTAGE_S = float(os.environ.get("OUTAGE_S", "6"))
PROCESSES = 3
WITHIN_S = 3.0
ALLOWANCE_S = 3.0  # for a machine that does other things as well
SHAPE = Shape(writes_per_s=600, direct_tasks=3, groups=4, mixed_tasks=1)


@pytest.fixture
def ensemble(shards: list[RedisServer]) -> Iterator[ZooKeeperCluster]:
    """Three servers that hold the topology of the three shards."""
    proxies = ProxyThread()
    cluster = ZooKeeperCluster(own_ensemble(3), proxies)
    try:
        hosts = [Shard(f"shard-{index}", shard.url) for index, shard in enumerate(shards)]
        cluster.start(initial_topology(hosts, cluster=secrets.token_hex(8)))
        yield cluster
    finally:
        cluster.close()
        proxies.close()


def _config(ensemble: ZooKeeperCluster, process: int, cache: Path, **more: Any) -> dict[str, Any]:
    topology = ensemble.settings_of(process)
    return {"topology": topology, "topology_cache": str(cache), "capacity": 50_000, **more}


async def _return(ensemble: ZooKeeperCluster, clients: int) -> float:
    """Start all servers; how long after the first one serves all clients are connected again."""
    returning = asyncio.create_task(asyncio.to_thread(ensemble.start_all))
    await _until(lambda: any(server.serving for server in ensemble.servers))
    began = time.monotonic()
    await _until(lambda: len(ensemble.connected()) >= clients)
    seconds = time.monotonic() - began
    await returning
    return seconds


async def _until(condition: Callable[[], bool]) -> None:
    await eventually_async(lambda: asyncio.to_thread(condition), 60)


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * OUTAGE_S)
async def test_a_load_does_not_notice_that_zookeeper_is_gone(
    ensemble: ZooKeeperCluster, tmp_path: Path
) -> None:
    """One server is lost, then all: no error, nothing lost; who starts meanwhile serves."""
    prefix = unique_prefix()
    caches = [tmp_path / f"copy-{index}.json" for index in range(PROCESSES)]
    configs = [_config(ensemble, i, cache, prefix=prefix) for i, cache in enumerate(caches)]
    async with Load(tmp_path / "load", configs, SHAPE) as load:
        load.begin()
        await asyncio.sleep(1)
        busiest = max(ensemble.servers, key=lambda server: len(server.connected()))
        await asyncio.to_thread(busiest.kill)
        await asyncio.sleep(OUTAGE_S / 3)
        for server in ensemble.servers:
            await asyncio.to_thread(server.kill)
        # On the host of the first process, by the copy that is there.
        latecomers = [_config(ensemble, 0, caches[0], prefix=unique_prefix())] * 2
        async with Load(tmp_path / "late", latecomers, SHAPE, name="late") as late:
            late.begin()
            await asyncio.sleep(OUTAGE_S)
            seconds = await _return(ensemble, PROCESSES + len(latecomers))
            print(f"all are connected again {seconds:.1f} s after ZooKeeper's return")
            assert seconds < WITHIN_S + ALLOWANCE_S
            await asyncio.to_thread(ensemble.advance)
            for process in (*load.processes, *late.processes):
                await eventually_async(
                    lambda process=process: process.told("now")["stats"]["epoch"] == 2  # type: ignore[misc]
                )
            records = await late.finish()
            verdict = verdict_of(late.traffic, records)
            print(f"started meanwhile: {verdict}")
            assert verdict.flawless
            assert verdict.deliveries
        verdict = verdict_of(load.traffic, await load.finish())
        print(f"the others: {verdict}")
        assert verdict.flawless
        assert verdict.deliveries
