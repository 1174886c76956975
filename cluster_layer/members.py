"""What this process knows of its members of groups, home by home; plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster_layer.buffers import Mailbox

if TYPE_CHECKING:
    import asyncio


@dataclass(slots=True, eq=False)
class Member:
    """A membership of one of this process's channels. Times in seconds of the loop's clock."""

    box: Mailbox
    expires_at: float
    active: bool = False  # the shard has confirmed
    stored: bool = False  # senders serve it, not the fan-out
    joining: int = 0  # calls that wait for the shard's answer
    # Positions on the shard of the latest join, kick and store: the higher one is the later.
    joined_at: int = 0
    since: int = 0  # what was published up to here is not for this member
    kicked_at: int = 0
    stored_at: int = 0
    # Life and position of the latest join, and of a kick that was told out of order.
    origin: tuple[str, int] = ("", 0)
    notice: tuple[str, int] = ("", 0)
    # The home that it was taken along from, and its origin there; None: it has joined here.
    came_from: tuple[str, str, int] | None = None

    @property
    def was_kicked(self) -> bool:
        """Whether a kick was told that is later than its join, and has not been heard here."""
        life, position = self.notice
        joined_in, joined_at = self.origin
        return bool(life) and (life != joined_in or position > joined_at)

    @property
    def served(self) -> bool:
        """Whether the fan-out serves it."""
        return self.active and not self.stored


@dataclass(slots=True, eq=False)
class Group:
    """The members that this process has in one group, at one of its homes."""

    name: str
    shard: str
    context: bytes
    members: dict[str, Member] = field(default_factory=dict)
    subscribed: asyncio.Task[None] | None = None
    settled: bool = False  # whether the shard knows of all members that came from another home
    known: int = 0  # the epoch that was gone by when this home was none yet
    latest_since: int = 0
    _targets: tuple[Mailbox, ...] | None = None

    @property
    def is_subscribing(self) -> bool:
        """Whether it is subscribed, or about to be."""
        task = self.subscribed
        return task is not None and not (
            task.done() and (task.cancelled() or task.exception() is not None)
        )

    def targets(self, position: int) -> tuple[Mailbox, ...]:
        """The mailboxes that get the message at this position."""
        if position <= self.latest_since:
            return tuple(m.box for m in self.members.values() if m.served and m.since < position)
        if self._targets is None:
            self._targets = tuple(member.box for member in self.members.values() if member.served)
        return self._targets

    def changed(self) -> None:
        self._targets = None
