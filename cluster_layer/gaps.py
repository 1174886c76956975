"""Gaps: what was not delivered, or perhaps not, and of which no caller is told by an error.

CONFIG ``on_gap`` names a plain function that is called with each `Gap`, on the event loop where it
was noticed. It must return at once; what it raises is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from topology.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Gap:
    """A message that was sent with ``confirm=False`` and did not get through, or perhaps not.

    `name` is the channel or group, `error` what would have been raised with ``confirm=True``:
    ``error.definite`` says whether it provably was not sent.
    """

    name: str
    error: ClusterError


OnGap: TypeAlias = Callable[[Gap], object]
