"""Every fault strikes a running cluster, and everything works again after its cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.environments.base import Need
from chaos.environments.local import LocalCluster
from chaos.faults import FAULTS
from tests.support.strikes import plan, strike_all

POSSIBLE = [name for name, fault in FAULTS.items() if fault.needs <= LocalCluster.provides]
CHANGES = [name for name in POSSIBLE if Need.CHANGES in FAULTS[name].needs]
ZOOKEEPER = [
    name for name in POSSIBLE if Need.ZOOKEEPER in FAULTS[name].needs and name not in CHANGES
]
ORDINARY = [name for name in POSSIBLE if name not in (*CHANGES, *ZOOKEEPER)]
LOSSES = [name for name in CHANGES if FAULTS[name].rehomed_within_s]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
async def test_a_fault_strikes_and_is_cured(tmp_path: Path, part: int) -> None:
    """Each process writes to each shard again, whatever had happened."""
    async with LocalCluster(plan(replica=True, aof=True, clocks=True), tmp_path) as cluster:
        await strike_all(cluster, ORDINARY[part::4])


@pytest.mark.slow
async def test_a_fault_of_zookeeper_strikes_and_is_cured(tmp_path: Path) -> None:
    """With an ensemble of three, whose data and ports survive."""
    async with LocalCluster(plan(zookeeper=3), tmp_path) as cluster:
        await strike_all(cluster, ZOOKEEPER)


@pytest.mark.slow
async def test_a_change_is_made_and_undone(tmp_path: Path) -> None:
    """By `cluster-layer`, with whatever befalls it; each shard has its share again."""
    async with LocalCluster(plan(zookeeper=1, spares=1), tmp_path) as cluster:
        await strike_all(cluster, [name for name in CHANGES if name not in LOSSES])
        topology = await cluster.operator.topology()
        assert topology.change is None
        assert sorted(topology.table.counts()) == ["shard-0", "shard-1", "shard-2"]


@pytest.mark.slow
async def test_a_shard_that_is_lost_is_marked_as_down_and_comes_back(tmp_path: Path) -> None:
    """By the monitors, also if the one that leads is killed with it."""
    async with LocalCluster(plan(monitors=2), tmp_path) as cluster:
        await strike_all(cluster, LOSSES)
