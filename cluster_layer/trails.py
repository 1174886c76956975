"""What a task wrote lately, remembered from one call to the next by a context variable.

Positions mean something only on the shards and under the prefix that they were counted for, so a
task that uses several layers has a trail for each *scope*. Layers of one process with the same
scope share it. Note that ``async_to_sync`` carries a context from one event loop to the next.
"""

from __future__ import annotations

import contextvars
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Final

from cluster_layer.order import Trail

MAX_SCOPES: Final = 16  # of one task; the one written to longest ago is forgotten first

_NOTHING: Final = Trail()

_trails: contextvars.ContextVar[Mapping[Hashable, Trail]] = contextvars.ContextVar(
    "cluster_layer_trails",
    default=MappingProxyType({}),
)


def recall(scope: Hashable) -> Trail:
    """The running task's trail in a scope."""
    return _trails.get().get(scope, _NOTHING)


def remember(scope: Hashable, trail: Trail) -> None:
    """From now on this is the running task's trail in a scope."""
    trails = _trails.get()
    if len(trails) == 1 and scope in trails:  # nearly every program has one layer
        _trails.set({scope: trail})
        return
    renewed = {other: kept for other, kept in trails.items() if other != scope}
    if len(renewed) >= MAX_SCOPES:
        del renewed[next(iter(renewed))]
    renewed[scope] = trail
    _trails.set(renewed)
