"""What faults may ask of an environment, whatever it is made of.

An environment says what it `provides`; a fault says what it `needs`. A fault that needs more than
an environment provides is not run there. To add an environment (containers, say): subclass
`Cluster`, say what it provides, make shards, links and a way to launch a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from chaos.environments.proxy import Direction
from chaos.history import Event, parse
from topology.errors import ClusterError

PREFIX: Final = "chaos"  # of all keys, in servers of our own
OPERATOR: Final = (sys.executable, "-m", "cluster_layer.cli")


class EnvironmentFailed(ClusterError):
    """The environment could not be set up or did not do what it was told."""


class Need(StrEnum):
    """What a fault takes hold of."""

    BLOCKS = "links that can be blocked"
    BYTES = "links whose bytes can be touched"
    PROCESSES = "processes that can be killed, stopped and told what to do"
    COMMANDS = "an administrator's access to shards"
    SERVERS = "shards whose servers can be killed and stopped"
    DISKS = "shards that come back with what they have saved"
    REPLICAS = "shards with replicas"
    CABLES = "shards that can be unplugged from their network"
    CLOCKS = "shards whose clocks can be set"
    ZOOKEEPER = "ZooKeeper servers"
    CHANGES = "a topology that can be changed"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment consists of; `config` are settings of the layer.

    `zookeeper` is the number of its servers, 0 for a topology in a file. `spares` are shards that
    run and are not in the topology yet. `layer` names what is tested, `worker` is the command of a
    process, which gets a file of orders, `operator` that of whoever changes the topology.
    """

    workload: str
    seed: str
    config: Mapping[str, Any]
    worker: Sequence[str]
    shards: int = 3
    processes: int = 3
    replica: bool = False
    aof: bool = False
    clocks: bool = False  # those of the shards can be set
    skewed: bool = False  # and are days apart
    zookeeper: int = 0
    spares: int = 0
    monitors: int = 0
    layer: str = "cluster-layer"
    operator: Sequence[str] = OPERATOR


class Link(Protocol):
    """The way between one process and one shard."""

    reads_disturbed: int

    def blackhole(self, direction: Direction = "both", *, swallow: bool = False) -> None: ...
    def heal(self) -> None: ...
    def close(self) -> None: ...


def begin(directory: Path, *, began_s: float, quiet_s: float, ended_s: float) -> None:
    """Let the processes begin; times of the monotonic clock."""
    times = {"began_s": began_s, "quiet_s": quiet_s, "ended_s": ended_s}
    fresh = directory / "begin.new"
    fresh.write_text(json.dumps(times), encoding="utf-8")
    fresh.replace(directory / "begin")


def recorded(directory: Path) -> list[Event]:
    """What the processes have written down until now."""
    events: list[Event] = []
    for path in sorted(directory.glob("*.events")):
        with path.open(encoding="utf-8") as lines:
            events += parse(lines)
    return events
