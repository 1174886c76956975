"""Gaps: what was not delivered, or perhaps not, and of which no caller is told by an error.

CONFIG ``on_gap`` names a plain function that is called with each `Gap`, on the event loop where it
was noticed. It must return at once; what it raises is logged. With CONFIG ``gap_message`` the
channels concerned get a message of that type as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from topology.errors import ClusterError


class GapReason(StrEnum):
    """Why something may be missing."""

    UNCONFIRMED = "unconfirmed"  # a message sent with confirm=False
    RECONNECT = "reconnect"  # the subscription to a shard was cut, and groups were written to
    RESTART = "restart"  # a shard has begun another life: what was unread there is gone
    CHANGE = "change"  # names have another home, and the old one was not read to its end
    OVERFLOW = "overflow"  # a channel was full


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that was not delivered, or perhaps not.

    `names` are the channels and groups concerned, the groups first; `why` is for people. `lasted_s`
    says how long ago it began. `missed` is an upper bound of the messages (of all groups of the
    shard, for a reconnect), None if nobody knows. `error`, of an unconfirmed message, is what would
    have been raised with ``confirm=True``: ``error.definite`` says whether it provably was not
    sent.
    """

    reason: GapReason
    names: tuple[str, ...]
    why: str
    lasted_s: float = 0.0
    missed: int | None = None
    error: ClusterError | None = None

    @property
    def name(self) -> str:
        """The first of the names; the only one of an unconfirmed message."""
        return self.names[0]


OnGap: TypeAlias = Callable[[Gap], object]


def unconfirmed(name: str, error: ClusterError) -> Gap:
    """A message that was sent with ``confirm=False`` and did not get through, or perhaps not."""
    return Gap(GapReason.UNCONFIRMED, (name,), str(error), missed=1, error=error)
