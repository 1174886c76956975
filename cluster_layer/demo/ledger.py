"""Who sent what, who got it, and what that says about the layer. Times are arguments, in seconds.

No clock, sockets or randomness here: the check feeds it, and tests feed it hand-written histories.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

# What was sent this long before the kill may still have been on its way through the shard.
IN_FLIGHT_S = 1.0


class Answer(Enum):
    """What a chat server said became of a message."""

    NONE = "none"
    SENT = "sent"
    NOT_SENT = "not sent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outage:
    """One shard's time away: from `killed_at` to `back_at`, then `heal_limit_s` to recover in."""

    shard: str
    killed_at: float
    back_at: float
    heal_limit_s: float

    def __post_init__(self) -> None:
        if self.back_at < self.killed_at:
            raise ValueError("a shard comes back after it was killed")

    def excuses(self, shard: str, sent_at: float) -> bool:
        """Whether a message sent then through this shard may be lost."""
        begin, end = self.killed_at - IN_FLIGHT_S, self.back_at + self.heal_limit_s
        return shard == self.shard and begin <= sent_at <= end


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

    def is_settled(self, outage: Outage | None) -> bool:
        """Whether every answer is there, and every delivery that must come has come."""
        return all(
            message.answer is not Answer.NONE
            and (self._excused(key, message, outage) or not self._missing(key, message))
            for key, message in self._messages.items()
        )

    def accounts(self, outage: Outage | None) -> list[ShardAccount]:
        """One per shard, by name."""
        by_shard: dict[str, dict[Key, _Message]] = defaultdict(dict)
        for key, message in self._messages.items():
            by_shard[self._shards[key[0]]][key] = message
        return [
            self._account(shard, by_shard[shard], outage)
            for shard in sorted(set(self._shards.values()))
        ]

    def _account(
        self, shard: str, messages: Mapping[Key, _Message], outage: Outage | None
    ) -> ShardAccount:
        rooms = [room for room, home in self._shards.items() if home == shard]
        lost: Counter[bool] = Counter()  # by whether there is an excuse
        refused: Counter[bool] = Counter()
        due = delivered = duplicates = after_refusal = 0
        for key, message in messages.items():
            excused = self._excused(key, message, outage)
            copies = message.copies
            if message.answer is Answer.NOT_SENT:
                refused[excused] += 1
                after_refusal += copies.total()
                continue
            due += len(self._members[key[0]])
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
            seconds_to_heal=self._seconds_to_heal(shard, messages, outage),
        )

    def _missing(self, key: Key, message: _Message) -> int:
        """Members who have not got it."""
        return len(self._members[key[0]] - message.copies.keys())

    def _excused(self, key: Key, message: _Message, outage: Outage | None) -> bool:
        return outage is not None and outage.excuses(self._shards[key[0]], message.sent_at)

    def _seconds_to_heal(
        self, shard: str, messages: Mapping[Key, _Message], outage: Outage | None
    ) -> float | None:
        """From the shard's return to the first message since which every one got everywhere."""
        if outage is None or shard != outage.shard:
            return None
        after = sorted(
            (message.sent_at, self._missing(key, message) == 0)
            for key, message in messages.items()
            if message.sent_at >= outage.back_at
        )
        healed_at = None
        for sent_at, complete in reversed(after):
            if not complete:
                break
            healed_at = sent_at
        return None if healed_at is None else healed_at - outage.back_at


def is_passed(accounts: Collection[ShardAccount], outage: Outage | None, strangers: int) -> bool:
    """Everything sent outside the outage arrived everywhere, once; the shard has healed in time."""
    healed = {account.shard: account.seconds_to_heal for account in accounts}
    if outage is not None:
        seconds = healed.get(outage.shard)
        if seconds is None or seconds > outage.heal_limit_s:
            return False
    return strangers == 0 and all(account.flawless and account.sent for account in accounts)
