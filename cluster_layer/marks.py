"""What a task wrote lately, and the marks that tell what its next write must not overtake.

Order between verbs (promise P3): what one task writes arrives in the order of its writes. What it
wrote to *other* lanes shortly before is marked in the envelope: "deliver only after position p of
that lane". A task that writes to one lane alone carries no marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from cluster_layer.lanes import INBOX, Lane

MAX_TRAIL: Final = 64  # shards; the oldest are forgotten first
MAX_DOUBTS: Final = 16  # per shard; the oldest are forgotten first


class Doubt(NamedTuple):
    """A write of unknown outcome, which has no position: only its reader can find it."""

    kind: str  # of its lane
    fingerprint: int


class Mark(NamedTuple):
    """Positions and writes on one life of one shard after which a message may be delivered."""

    incarnation: str
    inbox: int | None
    group: int | None
    doubts: tuple[Doubt, ...] = ()


_Entry: TypeAlias = tuple[str, int | None, int | None, float, tuple[Doubt, ...], int, float]
_NEVER: Final = float("-inf")


class Trail:
    """Where a task wrote lately; immutable. Times are seconds of a monotonic clock.

    It is looked at and renewed with every write, so an entry is a bare tuple: shard ->
    (incarnation, position in inboxes or None, position of publications or None, time, doubts, epoch
    of the topology by which the inbox was chosen, time of the last write to an earlier life).
    """

    __slots__ = ("_written", "uncertain")

    def __init__(
        self, written: Mapping[str, _Entry] | None = None, *, uncertain: bool = False
    ) -> None:
        """`uncertain`: it holds doubts."""
        self._written = written or {}
        self.uncertain = uncertain

    def __len__(self) -> int:
        return len(self._written)

    def after(
        self, lane: Lane, incarnation: str, position: int, now: float, epoch: int = 0
    ) -> Trail:
        """The trail after a write to this lane, by routes of this epoch.

        It ends all doubts about earlier ones there.
        """
        shard, kind = lane
        inbox = group = None
        inbox_epoch = epoch
        former = _NEVER
        doubts: tuple[Doubt, ...] = ()
        previous = self._written.get(shard)
        if previous is not None and previous[0] != incarnation:
            former = previous[3]
        elif previous is not None:
            _, inbox, group, _, doubts, inbox_epoch, former = previous
            if doubts:
                doubts = tuple(doubt for doubt in doubts if doubt.kind != kind)
        if kind == INBOX:
            inbox, inbox_epoch = position, epoch
        else:
            group = position
        return self._with(shard, (incarnation, inbox, group, now, doubts, inbox_epoch, former))

    def in_doubt(
        self, lane: Lane, incarnation: str, fingerprint: int, now: float, epoch: int = 0
    ) -> Trail:
        """The trail after a write to this lane that may have happened.

        It takes no place of an earlier one: if it has not happened, that one is the latest.
        """
        shard, kind = lane
        inbox = group = None
        inbox_epoch = epoch
        former = _NEVER
        doubts: tuple[Doubt, ...] = ()
        previous = self._written.get(shard)
        if previous is not None and previous[0] != incarnation:
            former = previous[3]
        elif previous is not None:
            _, inbox, group, _, doubts, inbox_epoch, former = previous
            if inbox is None and all(doubt.kind != INBOX for doubt in doubts):
                inbox_epoch = epoch
        doubts = (*doubts, Doubt(kind, fingerprint))[-MAX_DOUBTS:]
        return self._with(shard, (incarnation, inbox, group, now, doubts, inbox_epoch, former))

    def uncertain_lanes(self) -> list[Lane]:
        """The lanes to which something was written that may have happened."""
        lanes = (
            Lane(shard, doubt.kind) for shard, entry in self._written.items() for doubt in entry[4]
        )
        return list(dict.fromkeys(lanes))

    def marks(
        self, lane: Lane, now: float, window_s: float, epoch: int = 0
    ) -> dict[str, Mark] | None:
        """What a write to this lane, by routes of this epoch, must not overtake; None: nothing.

        A mark without positions tells of a life whose writes follow those of an earlier one.
        """
        shard, kind = lane
        marks = {}
        for other, (incarnation, inbox, group, at, doubts, chosen, former) in self._written.items():
            # By one topology a channel is always in one inbox; by another it was in another.
            if other == shard or (kind == INBOX and chosen == epoch):
                if kind == INBOX:
                    inbox = None
                else:
                    group = None
                if doubts:
                    doubts = tuple(doubt for doubt in doubts if doubt.kind != kind)
            named = inbox is not None or group is not None or doubts
            if (named and now - at <= window_s) or now - former <= window_s:
                marks[other] = Mark(incarnation, inbox, group, doubts)
        return marks or None

    def epoch_of(self, marks: Mapping[str, Mark]) -> int:
        """The latest epoch by which an inbox of these marks was chosen; 0: they name no inbox.

        A receiver that does not know it yet may not know either that it has an inbox there.
        """
        return max(
            (self._written[s][5] for s, mark in marks.items() if _names_inbox(mark)), default=0
        )

    def _with(self, shard: str, entry: _Entry) -> Trail:
        written = dict(self._written)
        written.pop(shard, None)  # the latest comes last
        if len(written) >= MAX_TRAIL:
            written.pop(next(iter(written)))
        written[shard] = entry
        uncertain = bool(entry[4]) or (
            self.uncertain and any(other[4] for other in written.values())
        )
        return Trail(written, uncertain=uncertain)


def _names_inbox(mark: Mark) -> bool:
    return mark.inbox is not None or any(doubt.kind == INBOX for doubt in mark.doubts)
