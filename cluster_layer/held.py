"""What the sequencer holds: messages, what each waits for, and how far each lane has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cluster_layer.lanes import GROUP, INBOX, Lane
from cluster_layer.marks import Mark

# Of what may be anywhere on its lane, or nowhere: beyond every position.
ANYWHERE: Final = 2**62


class Need(NamedTuple):
    """What must have been delivered first, on one life of one lane.

    A doubt is anywhere until a barrier is through: then it is among what is held there, or is
    nothing to wait for. So is what an earlier life has brought, if the writer's is another one.
    """

    lane: Lane
    incarnation: str
    position: int
    fingerprint: int | None = None

    @property
    def needs_barrier(self) -> bool:
        return self.position == ANYWHERE


@dataclass(slots=True, eq=False)
class Held:
    """A message that is held, and what it waits for."""

    position: int
    needs: list[Need]
    item: Any
    since: float
    serial: int
    fingerprint: int | None = None  # once somebody has asked for it
    #: Until this epoch is known, what the marks stand for here is not.
    epoch: int = 0
    marks: Mapping[str, Mark] | None = None


class LaneState:
    """One life of one lane. It outlives a cut for as long as it holds messages."""

    __slots__ = ("cut", "received", "waiting")

    def __init__(self) -> None:
        self.cut = False
        self.received = 0
        self.waiting: deque[Held] = deque()  # by position; of one position, as they came

    def hold(self, held: Held) -> None:
        """Have it wait in its place, which nearly always is the last."""
        behind = []
        while self.waiting and self.waiting[-1].position > held.position:
            behind.append(self.waiting.pop())
        self.waiting.append(held)
        self.waiting.extend(reversed(behind))

    def lacks(self, position: int) -> bool:
        """Whether something up to this position may still arrive, or be held."""
        if not self.cut and self.received < position:
            return True
        return bool(self.waiting) and self.waiting[0].position <= position


def named_in(marks: Mapping[str, Mark]) -> Iterator[Need]:
    """What these marks name, lane by lane."""
    for shard, mark in marks.items():
        if mark.inbox is not None:
            yield Need(Lane(shard, INBOX), mark.incarnation, mark.inbox)
        if mark.group is not None:
            yield Need(Lane(shard, GROUP), mark.incarnation, mark.group)
        for kind, fingerprint in mark.doubts:
            yield Need(Lane(shard, kind), mark.incarnation, ANYWHERE, fingerprint)
