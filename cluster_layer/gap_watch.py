"""What this process may have missed: noticed here, told to the gap hook and to the channels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from cluster_layer.buffers import Mailbox, Mailboxes, Parcel
from cluster_layer.envelope import Message
from cluster_layer.gaps import Gap, GapReason, OnGap

logger = logging.getLogger("cluster_layer")

#: Channels that were full, of which one look tells; who has more knows enough.
MAX_FULL: Final = 10_000


def tell(on_gap: OnGap | None, gap: Gap) -> None:
    """Call the hook of the CONFIG, which must not harm us."""
    if on_gap is None:
        return
    try:
        on_gap(gap)
    except Exception:
        logger.exception("CONFIG on_gap failed")


class _Told(Parcel):
    """A message of this process to one of its own channels; never sealed, never expired."""

    __slots__ = ("_message",)
    brief = True

    def __init__(self, message: Message) -> None:
        super().__init__(b"", b"", float("inf"))
        self._message = message

    def open(self, decipher: Callable[[bytes, bytes], bytes] | None) -> Message:  # noqa: ARG002
        return self._message


class GapWatch:
    """Belongs to the receiving side of a process, and outlives its loops. Times in seconds."""

    def __init__(
        self, mailboxes: Mailboxes, on_gap: OnGap | None, message_type: str | None
    ) -> None:
        """`message_type` of the messages to channels; None: there are none."""
        self._mailboxes = mailboxes
        self._on_gap = on_gap
        self._type = message_type
        self._cut_at: dict[str, float] = {}
        self._restarted: set[str] = set()
        self._full: dict[str, int] = {}
        self._owed: dict[str, int] = {}  # channels that are to be told how much they have missed
        if self.is_wanted:
            mailboxes.on_full = self._was_full

    @property
    def is_wanted(self) -> bool:
        return self._on_gap is not None or self._type is not None

    # -- what happens

    def cut(self, shard: str, now: float) -> None:
        """The subscription to a shard has gone down."""
        self._cut_at.setdefault(shard, now)

    def restarted(self, shard: str) -> None:
        """A shard has begun another life."""
        self._restarted.add(shard)

    def restored(
        self,
        shard: str,
        missed: int,
        groups: Mapping[str, Collection[Mailbox]],
        boxes: Collection[Mailbox],
        now: float,
    ) -> None:
        """The subscription has come up again, and so much was published meanwhile.

        `groups` are those served at the shard, with their members; `boxes` all channels whose
        messages come by it.
        """
        lasted_s = now - self._cut_at.pop(shard, now)
        if shard in self._restarted:
            self._restarted.discard(shard)
            why = f"shard {shard} has begun another life"
            gap = Gap(GapReason.RESTART, _names(groups, boxes), why, lasted_s)
            self._tell(gap, groups, boxes)
        elif missed and groups:
            why = f"the connection to shard {shard} was lost for {lasted_s:.1f} s"
            gap = Gap(GapReason.RECONNECT, tuple(groups), why, lasted_s, missed)
            self._tell(gap, groups, ())

    def moved(
        self, groups: Mapping[str, Collection[Mailbox]], boxes: Collection[Mailbox], why: str
    ) -> None:
        """These have another home now, and their old one was not read to its end."""
        if groups or boxes:
            self._tell(Gap(GapReason.CHANGE, _names(groups, boxes), why), groups, boxes)

    def sweep(self) -> None:
        """Tell of the channels that were full since the last time."""
        full, self._full = self._full, {}
        if full:
            missed = sum(full.values())
            why = f"{missed} messages met a channel that holds as many as its capacity allows"
            tell(self._on_gap, Gap(GapReason.OVERFLOW, tuple(full), why, missed=missed))
        if self._type is not None:
            self._tell_the_full(full)

    # -- internals

    def _tell_the_full(self, full: Mapping[str, int]) -> None:
        """Each as soon as it has room; until then what it missed adds up."""
        for channel, count in full.items():
            self._owed[channel] = self._owed.get(channel, 0) + count
        for channel, missed in list(self._owed.items()):
            box = self._mailboxes.find(channel)
            why = f"{missed} messages met a full channel"
            gap = Gap(GapReason.OVERFLOW, (channel,), why, missed=missed)
            if box is None or self._put(box, gap, ()):
                del self._owed[channel]

    def _was_full(self, box: Mailbox) -> None:
        if box.name in self._full or len(self._full) < MAX_FULL:
            self._full[box.name] = self._full.get(box.name, 0) + 1

    def _tell(
        self,
        gap: Gap,
        groups: Mapping[str, Collection[Mailbox]],
        boxes: Iterable[Mailbox],
    ) -> None:
        if not gap.names:
            return
        logger.warning(
            "gap: %s, %d channels and groups may have missed messages", gap.why, len(gap.names)
        )
        tell(self._on_gap, gap)
        if self._type is None:
            return
        groups_of: defaultdict[str, list[str]] = defaultdict(list)
        found = {box.name: box for box in boxes}
        for group, members in groups.items():
            for box in members:
                found[box.name] = box
                groups_of[box.name].append(group)
        for name, box in found.items():
            self._put(box, gap, groups_of[name])

    def _put(self, box: Mailbox, gap: Gap, groups: Collection[str]) -> bool:
        """Tell a channel, if it has room; one that has none will be told of an overflow."""
        if len(box.parcels) >= box.capacity:
            return False
        message: dict[str, Any] = {
            "type": self._type,
            "reason": gap.reason.value,
            "groups": list(groups),
            "lasted_s": gap.lasted_s,
            "missed": gap.missed,
            "why": gap.why,
        }
        self._mailboxes.put(box, _Told(message))
        return True


def _names(groups: Iterable[str], boxes: Iterable[Mailbox]) -> tuple[str, ...]:
    return (*groups, *(box.name for box in boxes))
