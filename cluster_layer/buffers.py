"""Messages that have arrived in this process and wait for their receivers.

A *mailbox* belongs to one channel name. Everything here is plain data on one event loop: no
sockets, no clock (times are arguments, seconds of a monotonic clock). Bodies stay encoded; a group
message that goes to ten thousand mailboxes is one object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from typing import Final, Protocol

from cluster_layer.envelope import Message, decode_again, decode_body, is_flat
from cluster_layer.names import inbox_name, is_process_specific

MAX_MESSAGES: Final = 1_000_000  # in all mailboxes of a process together
MAX_STALE: Final = 1_000


class Loss(StrEnum):
    """Why a message that was acknowledged is not delivered; every loss is counted under one."""

    EXPIRED = "expired"
    FULL = "full"
    MALFORMED = "malformed"
    UNDECIPHERABLE = "undecipherable"
    ORDER = "order"
    UNAVAILABLE = "unavailable"
    ABANDONED = "abandoned"
    DROPPED = "dropped"


class Parcel:
    """One encoded message, what it is bound to, and until when it may be delivered.

    `origin` is the item as a queue stored it, so that it can be put back; None elsewhere.
    """

    __slots__ = ("body", "context", "deadline", "origin")

    #: Whether it may wait less long than others do: if it expires, that says nothing about whether
    #: somebody reads the channel.
    brief = False

    def __init__(
        self, body: bytes, context: bytes, deadline: float, origin: bytes | None = None
    ) -> None:
        self.body = body
        self.context = context
        self.deadline = deadline
        self.origin = origin

    def open(self, decipher: Callable[[bytes, bytes], bytes] | None) -> Message:
        """The message, a value of the caller's own. MalformedEnvelope; whatever decipher raises.

        `decipher(body, context)` is for layers with keys.
        """
        return decode_body(self.body if decipher is None else decipher(self.body, self.context))


class SharedParcel(Parcel):
    """A parcel for many mailboxes: what opening it costs is spent once, not for every member."""

    __slots__ = ("_plain", "_template")

    def __init__(self, body: bytes, context: bytes, deadline: float) -> None:
        super().__init__(body, context, deadline)
        self._template: Message | None = None
        self._plain: bytes | None = None

    def open(self, decipher: Callable[[bytes, bytes], bytes] | None) -> Message:
        """As `Parcel.open`; whoever changes what it returns changes nothing for the others."""
        # Threads may open it at once: then each of them stores the same.
        if self._template is not None:
            return self._template.copy()
        if self._plain is not None:
            return decode_again(self._plain)
        plain = self.body if decipher is None else decipher(self.body, self.context)
        message = decode_body(plain)
        if is_flat(message):
            self._template = message.copy()
        else:
            self._plain = plain
        return message


class BriefParcel(Parcel):
    """A parcel whose sender has given it less time than the CONFIG does."""

    __slots__ = ()
    brief = True


class BriefSharedParcel(SharedParcel):
    """The same, for many mailboxes."""

    __slots__ = ()
    brief = True


class Waiter(Protocol):
    """A receiver that sleeps; once woken it will look into the mailbox by itself."""

    def wake(self) -> None: ...


def wake_one(waiters: list[Waiter]) -> bool:
    """Wake the first, if any sleeps; whoever is woken, or gone, is not among them any more."""
    if waiters:
        waiters.pop(0).wake()
        return True
    return False


class Mailbox:
    """Messages for one channel and the receivers that wait for them."""

    __slots__ = (
        "abandoned_at", "capacity", "groups", "name", "parcels", "shared", "stale", "waiters",
        "watched",
    )  # fmt: skip

    def __init__(self, name: str, capacity: int, shared: SharedMailbox | None) -> None:
        self.name = name
        self.capacity = capacity
        self.parcels: deque[Parcel] = deque()
        self.waiters: list[Waiter] = []
        self.groups: set[str] = set()
        self.shared = shared
        self.watched = False  # whether its inbox is known to be read
        self.stale = 0  # how many entries of `shared.ready` are for messages that are gone
        # Since when its last receiver was cancelled and no other came; None: not so.
        self.abandoned_at: float | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not (self.parcels or self.waiters or self.groups)


class SharedMailbox:
    """All mailboxes whose names share the part up to ``!``, for receivers of that part."""

    __slots__ = ("ready", "stale", "waiters")

    def __init__(self) -> None:
        self.ready: deque[Mailbox] | None = None  # None until somebody receives like that
        self.stale = 0  # entries of `ready` whose messages are gone
        self.waiters: list[Waiter] = []

    def watch(self, mailboxes: Iterator[Mailbox]) -> None:
        """From now on keep the mailboxes with messages in order of arrival."""
        if self.ready is None:
            self.ready = deque(box for box in mailboxes for _ in box.parcels)

    def pop(self) -> Mailbox | None:
        """The mailbox of the message that came first."""
        while self.ready:
            box = self.ready.popleft()
            if not box.stale:
                return box
            box.stale -= 1
            self.stale -= 1
        return None

    def skip(self, box: Mailbox, count: int) -> None:
        """The first messages of a mailbox are gone by another way."""
        if self.ready is None:
            return
        box.stale += count
        self.stale += count
        if self.stale > MAX_STALE + len(self.ready) // 2:
            self._prune(self.ready)

    def _prune(self, ready: deque[Mailbox]) -> None:
        for _ in range(len(ready)):
            box = ready.popleft()
            if box.stale:
                box.stale -= 1
            else:
                ready.append(box)
        self.stale = 0


class Audience:
    """Mailboxes that get the same messages."""

    __slots__ = ("boxes", "has_room_until")

    def __init__(self, boxes: tuple[Mailbox, ...]) -> None:
        self.boxes = boxes
        self.has_room_until = 0  # the last addition, by `Mailboxes.additions`, that surely fits

    def without(self, names: Collection[str]) -> Audience:
        """The others."""
        return Audience(tuple(box for box in self.boxes if box.name not in names))


class Mailboxes:
    """Every mailbox of a process."""

    def __init__(
        self, capacity_of: Callable[[str], int], lost: Callable[[Loss, int], None]
    ) -> None:
        self._capacity_of = capacity_of
        self._lost = lost
        self.on_full: Callable[[Mailbox], None] | None = None  # told of each message that is lost
        self._boxes: dict[str, Mailbox] = {}
        self.find: Callable[[str], Mailbox | None] = self._boxes.get
        self._shared: dict[str, SharedMailbox] = {}
        self._count = 0
        # So often a message has been added that members of groups got, one or many of them.
        self._additions = 0
        self._by_inbox = False  # whether anybody has ever received by the part up to ``!``

    def __len__(self) -> int:
        return len(self._boxes)

    def __iter__(self) -> Iterator[Mailbox]:
        return iter(self._boxes.values())

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return self._count

    def open(self, name: str) -> Mailbox:
        """The mailbox of a channel; made if need be."""
        box = self._boxes.get(name)
        if box is None:
            shared = self.shared(inbox_name(name)) if is_process_specific(name) else None
            box = self._boxes[name] = Mailbox(name, self._capacity_of(name), shared)
        return box

    def shared(self, inbox: str) -> SharedMailbox:
        """What receivers of the part up to ``!`` wait at."""
        shared = self._shared.get(inbox)
        if shared is None:
            shared = self._shared[inbox] = SharedMailbox()
        return shared

    def put(self, box: Mailbox, parcel: Parcel) -> bool:
        """Add a message and wake a receiver, if one waits; a full mailbox drops the new one."""
        parcels = box.parcels
        if len(parcels) >= box.capacity or self._count >= MAX_MESSAGES:
            self._lost(Loss.FULL, 1)
            if self.on_full is not None:
                self.on_full(box)
            return False
        parcels.append(parcel)
        self._count += 1
        if box.groups:
            self._additions += 1
        shared = box.shared
        if shared is not None and shared.ready is not None:
            shared.ready.append(box)
        return self.wake(box)

    def put_all(self, audience: Audience, parcel: Parcel) -> None:
        """`put` for many at once, as a fan-out does."""
        boxes = audience.boxes
        self._additions += 1
        if (
            self._additions > audience.has_room_until
            or self._count + len(boxes) > MAX_MESSAGES
            or self._by_inbox
        ):
            self._put_where_room_is(audience, parcel)
            return
        self._count += len(boxes)
        for box in boxes:
            box.parcels.append(parcel)
            if box.waiters:
                box.waiters.pop(0).wake()

    def _put_where_room_is(self, audience: Audience, parcel: Parcel) -> None:
        """Look at every mailbox, and how many more messages fit into the one with the least room.

        Each further addition takes away one place of any of them at most.
        """
        full = 0
        room = MAX_MESSAGES - self._count
        least = MAX_MESSAGES
        for box in audience.boxes:
            parcels = box.parcels
            places = box.capacity - len(parcels)
            if places <= 0 or room <= 0:
                full += 1
                if self.on_full is not None:
                    self.on_full(box)
                continue
            parcels.append(parcel)
            room -= 1
            if places < least:
                least = places
            shared = box.shared
            if shared is not None and shared.ready is not None:
                shared.ready.append(box)
            self.wake(box)
        self._count = MAX_MESSAGES - room
        audience.has_room_until = self._additions + (0 if full else least - 1)
        if full:
            self._lost(Loss.FULL, full)

    def wake(self, box: Mailbox) -> bool:
        """Wake a receiver of this mailbox, if one waits."""
        return wake_one(box.waiters) or (box.shared is not None and wake_one(box.shared.waiters))

    def put_back(self, box: Mailbox, parcel: Parcel) -> None:
        """A receiver was given this message and cancelled before it could see it."""
        box.parcels.appendleft(parcel)
        self._count += 1
        self._additions += 1
        if box.shared is not None and box.shared.ready is not None:
            box.shared.ready.appendleft(box)
        self.wake(box)

    def take(self, box: Mailbox, now: float) -> Parcel | None:
        """The next message of this mailbox that is not expired."""
        parcels = box.parcels
        while parcels:
            parcel = parcels.popleft()
            self._count -= 1
            if self._by_inbox and box.shared is not None:
                box.shared.skip(box, 1)
            if parcel.deadline > now:
                return parcel
            self._lost(Loss.EXPIRED, 1)
        return None

    def take_all(self, box: Mailbox) -> list[Parcel]:
        """Everything that waits in this mailbox, expired or not."""
        parcels = list(box.parcels)
        box.parcels.clear()
        self._gone(box, len(parcels))
        return parcels

    def take_shared(self, inbox: str, now: float) -> tuple[Mailbox, Parcel] | None:
        """The next message of any mailbox with this part up to ``!``, in order of arrival."""
        shared = self.shared(inbox)
        self._by_inbox = True
        shared.watch(box for box in self if box.shared is shared)
        while (box := shared.pop()) is not None:
            parcel = box.parcels.popleft()
            self._count -= 1
            if parcel.deadline > now:
                return box, parcel
            self._lost(Loss.EXPIRED, 1)
        return None

    def forget(self, box: Mailbox) -> None:
        """Drop a mailbox and what it still holds."""
        self.take_all(box)
        self._boxes.pop(box.name, None)

    def expire(self, now: float) -> list[Mailbox]:
        """Drop what has expired unread; the mailboxes in which something had its full time."""
        found = []
        for box in self._boxes.values():
            parcels = box.parcels
            if parcels and parcels[0].deadline <= now:
                gone = 0
                brief = True
                while parcels and parcels[0].deadline <= now:
                    brief = parcels.popleft().brief and brief
                    gone += 1
                self._gone(box, gone, expired=gone)
                if not brief:
                    found.append(box)
        return found

    def _gone(self, box: Mailbox, count: int, expired: int = 0) -> None:
        """Account for messages that were taken from the front of a mailbox."""
        self._count -= count
        if box.shared is not None:
            box.shared.skip(box, count)
        if expired:
            self._lost(Loss.EXPIRED, expired)

    def desert(self, now: float) -> None:
        """All receivers are gone, with the loop that they waited on."""
        for shared in self._shared.values():
            shared.waiters.clear()
        for box in self._boxes.values():
            box.waiters.clear()
            box.abandoned_at = now

    def wake_all(self) -> None:
        """Wake every receiver."""
        for waiters in self._shared.values():
            while wake_one(waiters.waiters):
                pass
        for box in self._boxes.values():
            while wake_one(box.waiters):
                pass

    def clear(self) -> None:
        """Drop every message, not the mailboxes."""
        for box in self._boxes.values():
            self.take_all(box)
