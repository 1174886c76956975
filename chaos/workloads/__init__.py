"""What the processes of a run do; one kind of traffic per module."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

from chaos.workloads import (
    burst,
    capacity,
    churn,
    direct,
    expiry,
    groups,
    large,
    mixed,
    normal,
    sync,
    unconfirmed,
    volume,
)
from chaos.workloads.actor import Actor

Tasks = Callable[[Actor], Awaitable[list[Coroutine[Any, Any, None]]]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of traffic: its tasks, settings of the layer, and the promises that it can break."""

    meaning: str
    tasks: Tasks
    invariants: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


_ALWAYS: Final = ("P1", "P2", "P4", "P6", "P8", "P9")


def _of(module: ModuleType, *more: str) -> Workload:
    config = getattr(module, "CONFIG", {})
    return Workload(module.__doc__ or "", module.tasks, (*more, *_ALWAYS), config)


WORKLOADS: Final[Mapping[str, Workload]] = {
    "direct": _of(direct, "P3"),
    "groups": _of(groups, "P3"),
    "normal": _of(normal),
    "mixed": _of(mixed, "P3"),
    "sync": _of(sync, "P3"),
    "churn": _of(churn, "P3"),
    "large": _of(large, "P3"),
    "capacity": _of(capacity, "P3"),
    "expiry": _of(expiry, "P3"),
    "volume": _of(volume, "P3"),
    "burst": _of(burst, "P3"),
    "unconfirmed": _of(unconfirmed, "P3"),
}
