"""A cluster that runs already."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.environments.control import Reply, ask
from cluster_layer.embedded import RedisServer, start_shards
from tests.support.layers import topology_file


def asked(port: int, *command: str) -> Reply:
    return asyncio.run(ask(port, *command))


def is_clusters(key: bytes) -> bool:
    return key.startswith(b"cluster-layer:") and key.endswith((b":e", b":t"))


SHORT = (0, 2)  # so short a run need not prove everything
COMMON = ("--seed", "1", "--seconds", "2.5", "--processes", "1")


@pytest.mark.slow
def test_our_processes_join_and_leave_nothing_behind(tmp_path: Path) -> None:
    """A fault of a shard, asked for by name, and two of our links: all is as it was before."""
    with start_shards(2) as shards:
        for shard in shards:
            asked(shard.port, "SET", "somebody's", "1")
            asked(shard.port, "CONFIG", "SET", "maxmemory", "123456789")
        url = topology_file(tmp_path / "topology", {"a": shards[0], "b": shards[1]})
        names = ("direct/out-of-memory", "direct/reset-storm")
        result = CliRunner().invoke(main, ["run", *names, *COMMON, "--topology", url])
        assert result.exit_code in SHORT, result.output
        assert "out-of-memory healed, struck 1 times" in result.output
        assert "reset-storm healed" in result.output
        for shard in shards:
            left = asked(shard.port, "KEYS", "*")
            assert isinstance(left, list)
            # Which epoch it serves is the cluster's to know, whoever comes and goes.
            ours = {key for key in left if isinstance(key, bytes) and not is_clusters(key)}
            assert ours == {b"somebody's"}
            memory = asked(shard.port, "CONFIG", "GET", "maxmemory")
            assert memory == [b"maxmemory", b"123456789"]


def test_what_is_not_ours_is_not_killed(redis_server: RedisServer, tmp_path: Path) -> None:
    """The scenario is skipped, and says why."""
    url = topology_file(tmp_path / "topology", {"a": redis_server})
    result = CliRunner().invoke(main, ["run", "direct/shard-kill", *COMMON, "--topology", url])
    assert result.exit_code == 3
    assert "SKIPPED  direct/shard-kill needs shards whose servers can be killed" in result.output


def test_a_topology_must_be_there(tmp_path: Path) -> None:
    """The error says what to do."""
    missing = (tmp_path / "missing.json").as_uri()
    result = CliRunner().invoke(main, ["run", "direct/calm", *COMMON, "--topology", missing])
    assert result.exit_code == 3
    assert "init" in result.output
