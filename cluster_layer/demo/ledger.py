"""Who sent what, who got it, and what that says about the layer. Times are arguments, in seconds.

No clock, sockets or randomness here: the check feeds it, and tests feed it hand-written histories.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

# What was sent this long before the kill may still have been on its way through the shard.
IN_FLIGHT_S = 1.0
# What was sent this long before a member's connection broke may still have been on its way to it
# through a server that was slow, or about to die.
BACKLOG_S = 3.0


class Answer(Enum):
    """What a chat server said became of a message."""

    NONE = "none"
    SENT = "sent"
    NOT_SENT = "not sent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outage:
    """One shard's time away: from `killed_at` to `back_at`, then `heal_limit_s` to recover in.

    `rooms`: what lived there at that time, where rooms move; None: those that always live there.
    """

    shard: str
    killed_at: float
    back_at: float
    heal_limit_s: float
    rooms: frozenset[str] | None = None
    how: str = "was killed with -9 and came back blank"
    returns: bool = True  # False: others take its names, and `back_at` is the end of the blow

    def __post_init__(self) -> None:
        if self.back_at < self.killed_at:
            raise ValueError("a shard comes back after it was killed")

    def strikes(self, room: str, home: str) -> bool:
        """Whether it is about this room."""
        return home == self.shard if self.rooms is None else room in self.rooms

    def excuses(self, room: str, home: str, sent_at: float) -> bool:
        """Whether a message sent then in this room may be lost."""
        begin, end = self.killed_at - IN_FLIGHT_S, self.back_at + self.heal_limit_s
        return self.strikes(room, home) and begin <= sent_at <= end


@dataclass(frozen=True, slots=True)
class Absence:
    """A member without a connection; what is said meanwhile is not due to it."""

    since: float
    until: float

    def covers(self, sent_at: float) -> bool:
        return self.since - BACKLOG_S <= sent_at <= self.until


@dataclass(slots=True)
class _Message:
    sent_at: float
    answer: Answer = Answer.NONE
    copies: Counter[str] = field(default_factory=Counter)  # by receiver


@dataclass(frozen=True, slots=True)
class ShardAccount:
    """What went through one shard; counts of messages, and of deliveries (message times member)."""

    shard: str
    rooms: int
    sent: int
    refused: int  # the sender was told that it was certainly not sent
    due: int  # deliveries, without those of refused messages
    delivered: int
    duplicates: int
    reordered: int
    after_refusal: int  # deliveries of messages that were said not to be sent
    lost_in_outage: int
    lost_otherwise: int
    refused_otherwise: int
    seconds_to_heal: float | None  # from the shard's return; None without an outage, or never

    @property
    def flawless(self) -> bool:
        """Nothing twice, nothing out of order, nothing lost or refused without an excuse."""
        flaws = self.duplicates + self.reordered + self.after_refusal
        return flaws + self.lost_otherwise + self.refused_otherwise == 0


Key = tuple[str, str, int]  # room, sender, number


class Ledger:
    """The history of one check. Numbers of one sender in one room grow."""

    def __init__(self, members: Mapping[str, Collection[str]], shards: Mapping[str, str]) -> None:
        """`members`: room -> those in it; `shards`: room -> the shard that it lives on."""
        self._members = {room: frozenset(names) for room, names in members.items()}
        self._shards = dict(shards)
        self._messages: dict[Key, _Message] = {}
        self._newest: dict[tuple[str, str, str], int] = {}  # receiver, room, sender
        self._reordered: Counter[str] = Counter()  # by room
        self._absences: dict[str, list[Absence]] = defaultdict(list)
        self.strangers = 0  # deliveries of what nobody sent, or to somebody who is not a member

    @property
    def sent(self) -> int:
        return len(self._messages)

    @property
    def delivered(self) -> int:
        return sum(sum(message.copies.values()) for message in self._messages.values())

    def record_sent(self, key: Key, at: float) -> None:
        self._messages[key] = _Message(at)

    def record_answer(self, key: Key, answer: Answer) -> None:
        self._messages[key].answer = answer

    def record_absence(self, member: str, absence: Absence) -> None:
        """Its connection was gone; what it had asked for and not heard of has no known outcome."""
        self._absences[member].append(absence)
        for (_, sender, _), message in self._messages.items():
            unanswered = message.answer is Answer.NONE and message.sent_at <= absence.until
            if sender == member and unanswered:
                message.answer = Answer.UNKNOWN

    def record_delivery(self, receiver: str, key: Key) -> None:
        room, sender, number = key
        message = self._messages.get(key)
        if message is None or receiver not in self._members[room]:
            self.strangers += 1
            return
        message.copies[receiver] += 1
        newest = self._newest.get((receiver, room, sender), -1)
        if number < newest:
            self._reordered[room] += 1
        self._newest[receiver, room, sender] = max(number, newest)

    def is_settled(self, outages: Sequence[Outage]) -> bool:
        """Whether every answer is there, and every delivery that must come has come."""
        return all(
            message.answer is not Answer.NONE
            and (self._excused(key, message, outages) or not self._missing(key, message))
            for key, message in self._messages.items()
        )

    def accounts(self, outages: Sequence[Outage]) -> list[ShardAccount]:
        """One per shard, by name."""
        by_shard: dict[str, dict[Key, _Message]] = defaultdict(dict)
        for key, message in self._messages.items():
            by_shard[self._shards[key[0]]][key] = message
        return [
            self._account(shard, by_shard[shard], outages)
            for shard in sorted(set(self._shards.values()))
        ]

    def _account(
        self, shard: str, messages: Mapping[Key, _Message], outages: Sequence[Outage]
    ) -> ShardAccount:
        rooms = [room for room, home in self._shards.items() if home == shard]
        lost: Counter[bool] = Counter()  # by whether there is an excuse
        refused: Counter[bool] = Counter()
        due = delivered = duplicates = after_refusal = 0
        for key, message in messages.items():
            excused = self._excused(key, message, outages)
            copies = message.copies
            if message.answer is Answer.NOT_SENT:
                refused[excused] += 1
                after_refusal += copies.total()
                continue
            due += len(copies) + self._missing(key, message)
            delivered += len(copies)
            duplicates += copies.total() - len(copies)
            lost[excused] += self._missing(key, message)
        return ShardAccount(
            shard=shard,
            rooms=len(rooms),
            sent=len(messages),
            refused=refused.total(),
            due=due,
            delivered=delivered,
            duplicates=duplicates,
            reordered=sum(self._reordered[room] for room in rooms),
            after_refusal=after_refusal,
            lost_in_outage=lost[True],
            lost_otherwise=lost[False],
            refused_otherwise=refused[False],
            seconds_to_heal=self._worst_to_heal(shard, outages),
        )

    def unexcused(self, outages: Sequence[Outage]) -> Iterator[tuple[float, Key, list[str]]]:
        """When a message was sent that nothing excuses, which, and who has not got it."""
        for key, message in self._messages.items():
            if message.answer is Answer.NOT_SENT or self._excused(key, message, outages):
                continue
            if without := self._without(key, message):
                yield message.sent_at, key, without

    def _missing(self, key: Key, message: _Message) -> int:
        return len(self._without(key, message))

    def _without(self, key: Key, message: _Message) -> list[str]:
        """Members who have not got it, and were there to get it."""
        without = self._members[key[0]] - message.copies.keys()
        return sorted(one for one in without if not self._is_absent(one, message.sent_at))

    def _is_absent(self, member: str, sent_at: float) -> bool:
        return any(absence.covers(sent_at) for absence in self._absences.get(member, ()))

    def _excused(self, key: Key, message: _Message, outages: Sequence[Outage]) -> bool:
        room, sender, _ = key
        home, sent_at = self._shards[room], message.sent_at
        by_outage = any(outage.excuses(room, home, sent_at) for outage in outages)
        # Whether the words of a connection that broke were sent, nobody can know.
        return by_outage or (message.answer is not Answer.SENT and self._is_absent(sender, sent_at))

    def _worst_to_heal(self, shard: str, outages: Sequence[Outage]) -> float | None:
        """The longest of a shard's outages; None: there was none, or it never healed."""
        seconds = [self.seconds_to_heal(one, outages) for one in outages if one.shard == shard]
        known = [one for one in seconds if one is not None]
        return max(known) if known and len(known) == len(seconds) else None

    def seconds_to_heal(self, outage: Outage, outages: Sequence[Outage]) -> float | None:
        """From the shard's return to the first message since which every one got everywhere.

        Looks no further than the next outage of any shard. None: it never healed.
        """
        later = [one.killed_at for one in outages if one.killed_at > outage.back_at]
        end = min(later, default=float("inf")) - IN_FLIGHT_S
        after = sorted(
            (message.sent_at, self._missing(key, message) == 0)
            for key, message in self._messages.items()
            if outage.strikes(key[0], self._shards[key[0]])
            and outage.back_at <= message.sent_at <= end
            and not self._is_absent(key[1], message.sent_at)
        )
        healed_at = None
        for sent_at, complete in reversed(after):
            if not complete:
                break
            healed_at = sent_at
        return None if healed_at is None else healed_at - outage.back_at


def is_passed(
    accounts: Collection[ShardAccount], outages: Sequence[Outage], strangers: int
) -> bool:
    """Everything sent outside the outages arrived everywhere, once; shards have healed in time."""
    healed = {account.shard: account.seconds_to_heal for account in accounts}
    for outage in outages:
        seconds = healed.get(outage.shard)
        if seconds is None or seconds > outage.heal_limit_s:
            return False
    return strangers == 0 and all(account.flawless and account.sent for account in accounts)


@dataclass(frozen=True, slots=True)
class Outcome:
    accounts: Sequence[ShardAccount]
    outages: Sequence[Outage]
    strangers: int
    counted_losses: Counter[str]  # by the reason that the layers of all servers gave

    @property
    def passed(self) -> bool:
        return is_passed(self.accounts, self.outages, self.strangers)
