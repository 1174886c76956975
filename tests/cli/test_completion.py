"""Completion as a shell asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_layer.config import default_topology_cache
from tests.cli.deployment import deployed
from topology.codec import encode
from topology.model import Shard
from topology.planning import initial_topology

PROGRAM = str(Path(sys.executable).with_name("cluster-layer"))


def completed(words: str, **environment: str) -> list[str]:
    """What bash is offered for the last of these words."""
    result = subprocess.run(
        [PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "_CLUSTER_LAYER_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            **environment,
        },
    )
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_verbs_and_options_are_completed() -> None:
    assert completed("cluster-layer che") == ["check"]
    assert "--watch" in completed("cluster-layer status --w")


def test_shard_ids_are_completed_from_a_file(tmp_path: Path) -> None:
    """The store may be named on the command line or in the environment."""
    with deployed(tmp_path, options=({}, {})) as deployment:
        words = f"cluster-layer shard drain --store {deployment.store} "
        assert completed(words) == ["a", "b"]
        environment = {"CLUSTER_LAYER_STORE": deployment.store}
        assert completed("cluster-layer shard weight b", **environment) == ["b"]


def test_shard_ids_of_zookeeper_come_from_the_last_good_copy(tmp_path: Path) -> None:
    """Nobody waits for a server while typing: here, there is none."""
    url = "zookeeper://127.0.0.1:1/site"
    environment = {"XDG_STATE_HOME": str(tmp_path), "CLUSTER_LAYER_STORE": url}
    assert completed("cluster-layer shard remove ", **environment) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path))
        path = default_topology_cache(url)
    assert path is not None
    path.parent.mkdir(parents=True)
    shards = [Shard("one", "redis://one"), Shard("two", "redis://two")]
    path.write_bytes(encode(initial_topology(shards, cluster="0" * 16)))
    assert completed("cluster-layer shard remove t", **environment) == ["two"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    """It names the program and click's variable."""
    result = subprocess.run(
        [PROGRAM, "completion", shell], capture_output=True, text=True, timeout=60, check=True
    )
    assert "_CLUSTER_LAYER_COMPLETE" in result.stdout
    assert "cluster-layer" in result.stdout
