"""Layers with a defect each, and the scenario that catches it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chaos.environments.base import OPERATOR
from chaos.environments.local import WORKER


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect, where it is caught, and as what."""

    name: str
    meaning: str
    scenario: str
    invariant: str
    seed: int = 1
    seconds: float = 4.5
    drain_s: float = 1.0
    of: Literal["layer", "operator"] = "layer"

    @property
    def worker(self) -> Sequence[str]:
        """The command of a process."""
        return self._command if self.of == "layer" else WORKER

    @property
    def operator(self) -> Sequence[str]:
        """The command of whoever changes the topology."""
        return self._command if self.of == "operator" else OPERATOR

    @property
    def _command(self) -> Sequence[str]:
        module = {"layer": "worker", "operator": "operator"}[self.of]
        return (sys.executable, "-m", f"tests.chaos.mutants.{module}", self.name)


MUTANTS: Final = (
    Mutant("resend", "a write of unknown outcome is sent again", "direct/reply-lost", "P1"),
    Mutant(
        "redis-retries",
        "every connection error is retried ten times, as redis-py does",
        "normal/reply-lost",
        "P1",
    ),
    Mutant("no-incarnation", "all lives of a server use the same keys", "normal/stale-rdb", "P1"),
    Mutant(
        "copy-on-return",
        "a popped message that nobody took is copied back, not moved",
        "churn/calm",
        "P1",
    ),
    Mutant(
        "cursor-forgotten",
        "each connection reads the inbox from its beginning",
        "direct/reset-storm",
        "P1",
    ),
    Mutant(
        "copy-on-change",
        "what waits in a queue that moves is copied to its new home, not moved",
        "normal/shard-drain",
        "P1",
        seconds=12.0,
        of="operator",
    ),
    Mutant("no-order", "writes carry no marks of what came before", "mixed/calm", "P3"),
    Mutant("deaf-to-kicks", "a leave by another process is not heeded", "groups/calm", "P2"),
    Mutant("lies", "an unknown outcome is said to be definite", "direct/reply-lost", "P2"),
    Mutant(
        "silent-loss",
        "a full mailbox drops without counting",
        "capacity/calm",
        "P4",
        drain_s=3.0,
    ),
    Mutant(
        "one-home",
        "a name that moves is served at its new home alone: the old one is not drained",
        "volume/shard-add",
        "P5",
        seconds=12.0,
    ),
    Mutant(
        "ignores-epochs",
        "messages are sent by the first table for ever",
        "groups/shard-add",
        "P5",
        seconds=12.0,
    ),
    Mutant(
        "no-resubscription",
        "after a cut, groups are not subscribed to again",
        "mixed/shard-kill",
        "P6",
        seconds=8.0,
    ),
    Mutant(
        "gives-up",
        "receive() raises when nothing came for a while",
        "groups/shard-kill",
        "P6",
    ),
    Mutant(
        "needs-zookeeper",
        "nothing is sent while ZooKeeper is away",
        "direct/zookeeper-lost",
        "P7",
        seconds=9.0,
    ),
    Mutant(
        "never-settles",
        "after an unknown outcome the call goes on waiting",
        "direct/reply-lost",
        "P8",
    ),
    Mutant("no-ttl", "keys live for ever", "direct/calm", "P8", seconds=3.0),
    Mutant("foreign-error", "redis-py's errors come through", "normal/reply-lost", "P9"),
    Mutant(
        "wall-clock", "deadlines are told by the host's clock", "direct/clock-step", "P10", seed=1
    ),
)
