"""What the processes of a run do; one kind of traffic per module."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.workloads import churn, direct, groups, mixed, normal, pressure, sync
from chaos.workloads.actor import Actor

Tasks = Callable[[Actor], Awaitable[list[Coroutine[Any, Any, None]]]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of traffic: its tasks, settings of the layer, and the promises that it can break."""

    tasks: Tasks
    invariants: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


_ALWAYS: Final = ("P1", "P2", "P4", "P6", "P8", "P9")

WORKLOADS: Final[Mapping[str, Workload]] = {
    "direct": Workload(direct.tasks, ("P3", *_ALWAYS)),
    "groups": Workload(groups.tasks, ("P3", *_ALWAYS)),
    "normal": Workload(normal.tasks, _ALWAYS),
    "mixed": Workload(mixed.tasks, ("P3", *_ALWAYS)),
    "sync": Workload(sync.tasks, ("P3", *_ALWAYS)),
    "churn": Workload(churn.tasks, ("P3", *_ALWAYS)),
    "pressure": Workload(pressure.tasks, ("P3", *_ALWAYS), pressure.CONFIG),
}
