"""Networks that are apart."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.checkers import check
from chaos.checkers.base import Verdict
from chaos.environments.control import ask
from chaos.environments.netns import (
    PORT,
    Host,
    NamespaceCluster,
    NamespacedRedis,
    NamespaceLink,
    Network,
)
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import SCENARIOS
from tests.support.waiting import eventually

PING = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5) as connection:
    connection.settimeout(1.0)
    connection.sendall(b"PING\\r\\n")
    assert connection.recv(7) == b"+PONG\\r\\n"
"""


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    network = Network()
    yield network
    network.close()


def reaches(host: Host, target: Host) -> bool:
    """Whether a server there answers."""
    command = host.launch(["python3", "-c", PING, target.address, str(PORT)])
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_each_link_can_be_blocked_by_itself(network: Network) -> None:
    """One way or both; others go on, and we ourselves reach everything."""
    one, other, shard = (network.add(name) for name in ("p0", "p1", "s0"))
    server = NamespacedRedis(shard, {})
    try:
        await asyncio.to_thread(server.start)
        link = NamespaceLink(network, one, shard)
        assert reaches(one, shard)
        for direction in ("requests", "replies", "both"):
            sent_again = link.reads_disturbed
            link.blackhole(direction)
            assert not reaches(one, shard)
            assert link.reads_disturbed > sent_again
            assert reaches(other, shard)
            assert await ask(PORT, "PING", host=shard.address) == b"PONG"
            link.heal()
            assert reaches(one, shard)
    finally:
        server.close()


def test_nothing_is_left(network: Network) -> None:
    """Neither namespaces nor links."""
    network.add("p0")
    network.close()
    assert not [path for path in Path("/run/netns").iterdir() if network._id in path.name]
    # The kernel takes a moment for it.
    devices = Path("/sys/class/net")
    eventually(lambda: not list(devices.glob(f"*{network._id[6:]}*")))


@pytest.mark.slow
async def test_a_scenario_runs_there(network: Network) -> None:
    """And what it shows is valid."""
    what = Run(SCENARIOS["mixed/deaf"], 1, 5.0, processes=2, drain_s=3.0, make=NamespaceCluster)
    findings = check(history_of(await run(what, print)))
    assert {one.verdict for one in findings} <= {Verdict.VALID, Verdict.UNKNOWN}, findings
    (struck,) = [one for one in findings if one.invariant == "substance"]
    assert struck.verdict is Verdict.VALID
