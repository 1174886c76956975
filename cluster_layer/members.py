"""What this process knows of its members of groups, home by home; plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster_layer.buffers import Audience, Mailbox

if TYPE_CHECKING:
    import asyncio


@dataclass(slots=True, eq=False)
class Member:
    """A membership of one of this process's channels. Times in seconds of the loop's clock."""

    box: Mailbox
    expires_at: float
    active: bool = False  # the shard has confirmed
    stored: bool = False  # senders serve it, not the fan-out
    invited: bool = False  # by whoever has stored it, and the shard has not confirmed that yet
    joins: int = 0  # own calls that wait for the shard's answer
    joining: int = 0  # these, and whatever else waits for one
    # Positions on the shard of the latest join, kick and store: the higher one is the later.
    joined_at: int = 0
    since: int = 0  # what was published up to here is not for this member
    kicked_at: int = 0
    stored_at: int = 0
    taken_at: int = 0  # by the answer to a take-over; ``unstored`` says it in order
    unstored_at: int = 0
    # Life and position of the latest join, and of a kick that was told out of order.
    origin: tuple[str, int] = ("", 0)
    notice: tuple[str, int] = ("", 0)
    # The home that it was taken along from, and its origin there; None: it has joined here.
    came_from: tuple[str, str, int] | None = None

    @property
    def continues(self) -> bool:
        """Whether it is a member here only because it was one where it came from."""
        return self.came_from is not None and not self.joins

    @property
    def is_taken(self) -> bool:
        """Whether it was taken over at a position that has not been heard yet."""
        return self.taken_at > self.unstored_at

    @property
    def is_over(self) -> bool:
        """Whether nothing makes it a member, and nothing that is on its way will."""
        return not (self.active or self.stored or self.joining or self.is_taken)

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
    # For a home that it has got since: the epoch that was gone by when it was none yet, and the one
    # that made it one, as far as is known. Both 0: it is older than any member here.
    known: int = 0
    home_since: int = 0
    latest_since: int = 0
    _audience: Audience | None = None

    @property
    def is_subscribing(self) -> bool:
        """Whether it is subscribed, or about to be."""
        task = self.subscribed
        return task is not None and not (
            task.done() and (task.cancelled() or task.exception() is not None)
        )

    def audience(self, position: int) -> Audience:
        """The mailboxes that get the message at this position."""
        members = self.members.values()
        if position <= self.latest_since:
            return Audience(tuple(m.box for m in members if m.served and m.since < position))
        if self._audience is None:
            self._audience = Audience(tuple(member.box for member in members if member.served))
        return self._audience

    def changed(self) -> None:
        self._audience = None
