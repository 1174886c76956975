"""The site of docker-compose.yml as an environment: containers are struck, and nothing is left."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.checkers import check
from chaos.checkers.base import Verdict
from chaos.cli import main
from chaos.environments.base import EnvironmentFailed
from chaos.environments.compose import missing_engine
from chaos.environments.compose_cluster import ComposeCluster, require_possible
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import SCENARIOS
from tests.support.strikes import plan, strike_all
from tests.support.waiting import eventually_async

COMMON = ("--environment", "compose", "--seconds", "2", "--processes", "1")


@pytest.fixture
def engine() -> None:
    try:
        require_possible(plan())
    except EnvironmentFailed as error:
        pytest.skip(str(error))


def left(kind: str, *more: str) -> set[str]:
    """Containers, networks or volumes of sites like ours."""
    command = ["docker", kind, "ls", *more, "--quiet", "--filter", "name=cluster-layer-"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def all_left() -> set[str]:
    return left("container", "--all") | left("network") | left("volume")


@pytest.mark.slow
async def test_containers_are_struck_and_cured(engine: None, tmp_path: Path) -> None:
    """Killed, paused, unplugged; a link, a ZooKeeper server; a shard is added. Nothing is left."""
    before = all_left()
    names = ("shard-kill", "partition", "shard-pause", "zookeeper-kill", "unplugged", "shard-add")
    async with ComposeCluster(plan(spares=1), tmp_path) as cluster:
        await strike_all(cluster, names)
        assert (await cluster.operator.topology()).change is None
        assert all(audit.unbounded == 0 for audit in await cluster.audits())
    assert all_left() <= before


@pytest.mark.slow
async def test_whoever_interrupts_it_leaves_nothing_behind(engine: None, tmp_path: Path) -> None:
    """Also while containers are made: those that come after the interruption are removed, too."""
    before = all_left()
    setting_up = asyncio.create_task(ComposeCluster(plan(), tmp_path).__aenter__())
    await eventually_async(lambda: asyncio.to_thread(lambda: bool(all_left() - before)))
    setting_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await setting_up
    assert all_left() <= before


@pytest.mark.slow
async def test_a_scenario_runs_on_containers(engine: None) -> None:
    """And what it shows is valid."""
    what = Run(SCENARIOS["mixed/unplugged"], 1, 5.0, processes=2, drain_s=3.0, make=ComposeCluster)
    findings = check(history_of(await run(what, print)))
    assert {one.verdict for one in findings} <= {Verdict.VALID, Verdict.UNKNOWN}, findings


def test_what_no_user_of_the_site_may_do_is_not_done() -> None:
    """The scenario is skipped, and says why; nothing is brought up for it."""
    result = CliRunner().invoke(main, ["run", "direct/out-of-memory", *COMMON])
    assert result.exit_code == 3
    assert "needs an administrator's access to shards" in result.output


def test_a_run_that_is_not_possible_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is brought up; exit code 3."""
    result = CliRunner().invoke(main, ["run", "direct/calm", *COMMON, "--shards", "5"])
    assert result.exit_code == 3
    assert "has 3 shards, not 5" in result.output
    monkeypatch.setenv("PATH", "/nowhere")
    assert missing_engine() == "there is no docker command"
    result = CliRunner().invoke(main, ["run", "direct/calm", *COMMON])
    assert result.exit_code == 3
    assert "apt-get install docker.io docker-compose" in result.output
