"""The topology: an immutable value that says which shard owns which slot."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from topology.errors import TopologyInvalid
from topology.hashing import SLOTS, slot_of

#: More would own fewer than four slots each, too few to follow their weights.
MAX_SHARDS: Final = 1024
MAX_EPOCH: Final = 2**53 - 1  # exact in every language's JSON
MIN_WEIGHT: Final = 1e-6
MAX_WEIGHT: Final = 1e6
_MAX_ID_LENGTH: Final = 255
_MAX_URL_LENGTH: Final = 2048
_MAX_TEXT_LENGTH: Final = 500
_MAX_TIME_S: Final = 2**53 - 1
_MAX_PID: Final = 2**31

_ID = re.compile("[0-9a-f]{16}")

_SECRET_PARAMETER = re.compile(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


class ShardState(Enum):
    """Whether a shard may own slots."""

    UP = "up"
    DRAINING = "draining"  # owns slots, but is to get no new ones
    DOWN = "down"  # owns nothing


class Phase(Enum):
    """How far a planned change has come."""

    STEADY = "steady"
    PREPARED = "prepared"  # the next table is known, the old one is used
    COMMITTED = "committed"  # the new table is used, the old one is still read


def require_id(what: str, value: object) -> None:
    """TopologyInvalid unless the value is 16 lower-case hexadecimal digits."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise TopologyInvalid(f"{what} must be 16 lower-case hexadecimal digits, not {value!r:.40}")


def redacted_url(url: str) -> str:
    """The URL without what may be a secret: user information and secret-like parameters."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if "@" in url else url
    # A password may hold an unescaped "/" or "@": everything before the last "@" counts as one.
    userinfo, at, place = rest.rpartition("@")
    if at:
        user = userinfo.partition(":")[0] if ":" in userinfo else ""
        rest = f"{user}:***@{place}"
    return _SECRET_PARAMETER.sub(r"\1***", f"{scheme}://{rest}")


def _require_printable(what: str, text: object, limit: int, shown: str) -> None:
    if not isinstance(text, str):
        raise TopologyInvalid(f"{what} must be a string, not {type(text).__name__}")
    if not text or len(text) > limit or not text.isprintable() or " " in text:
        raise TopologyInvalid(
            f"{what} {shown!r} must have 1 to {limit} printable characters and no space"
        )


def require_text(what: str, text: object) -> None:
    """TopologyInvalid unless the value is one line of text for people."""
    if not isinstance(text, str) or not text.isprintable() or len(text) > _MAX_TEXT_LENGTH:
        raise TopologyInvalid(
            f"{what} must be printable text of at most {_MAX_TEXT_LENGTH} characters, "
            f"not {text!r:.80}"
        )


def require_epoch(what: str, value: object) -> None:
    """TopologyInvalid unless the value is an epoch."""
    _require_integer(what, value, 1, MAX_EPOCH)


def _require_integer(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise TopologyInvalid(f"{what} must be an integer from {low} to {high}, not {value!r:.40}")


@dataclass(frozen=True, slots=True, repr=False)
class Shard:
    """One Redis server: how it is called, reached and weighted."""

    id: str
    url: str
    weight: float = 1
    state: ShardState = ShardState.UP

    def __post_init__(self) -> None:
        _require_printable("the shard id", self.id, _MAX_ID_LENGTH, str(self.id)[:80])
        shown = redacted_url(self.url)[:80] if isinstance(self.url, str) else ""
        _require_printable(f"the URL of shard {self.id!r}", self.url, _MAX_URL_LENGTH, shown)
        if "://" not in self.url:
            raise TopologyInvalid(f"the URL of shard {self.id!r} needs a scheme such as redis://")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float):
            raise TopologyInvalid(
                f"the weight of shard {self.id!r} must be a number, not {self.weight!r}"
            )
        if not MIN_WEIGHT <= self.weight <= MAX_WEIGHT:  # NaN fails this too
            raise TopologyInvalid(
                f"the weight of shard {self.id!r} is {self.weight!r}; "
                f"allowed is {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
            )
        if not isinstance(self.state, ShardState):
            raise TopologyInvalid(f"the state of shard {self.id!r} is {self.state!r}")

    def __repr__(self) -> str:
        return (
            f"Shard(id={self.id!r}, url={redacted_url(self.url)!r}, "
            f"weight={self.weight!r}, state={self.state.value})"
        )


@dataclass(frozen=True, slots=True, repr=False)
class SlotTable:
    """Owner of each slot: the id of a shard at the slot's index."""

    owners: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.owners, tuple) or len(self.owners) != SLOTS:
            raise TopologyInvalid(f"a slot table must be a tuple of {SLOTS} shard ids")

    def slots_of(self, shard_id: str) -> tuple[int, ...]:
        """The shard's slots, ascending; empty for a shard that the table does not name."""
        return tuple(slot for slot, owner in enumerate(self.owners) if owner == shard_id)

    def counts(self) -> dict[str, int]:
        """Shard id -> number of slots, for those that own any."""
        return dict(Counter(self.owners))

    def __repr__(self) -> str:
        return f"SlotTable({', '.join(f'{k}: {n}' for k, n in sorted(self.counts().items()))})"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who began a change, and where; for people, never for decisions."""

    user: str
    host: str
    pid: int

    def __post_init__(self) -> None:
        require_text("the operator's user", self.user)
        require_text("the operator's host", self.host)
        _require_integer("the operator's pid", self.pid, 0, _MAX_PID)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class Change:
    """A planned change under way, as whoever resumes or aborts it must know it.

    It is a sequence of rounds that each move at most ``step`` slots towards ``table``. While it
    lasts the topology has all shards of before and after; see ``Topology.final_shards``.
    Processes that send and receive ignore it.
    """

    id: str
    summary: str
    operator: Operator
    started_at: int  #: seconds since 1970, by the operator's clock
    began_from: int  #: epoch of the topology that it was planned for
    table: SlotTable  #: the table to end with
    slots: int  #: how many it moves in all
    step: int  #: at most that many slots per round
    arriving: tuple[str, ...] = ()  #: ids of shards that were not there before
    leaving: tuple[str, ...] = ()  #: ids of shards that are gone when it ends
    former: tuple[Shard, ...] = ()  #: what the shards that it alters were before
    paused: str | None = None  #: why it is paused; None: it is not
    aborting: bool = False  #: the round under way is being undone, and is the last

    def __post_init__(self) -> None:
        require_id("the id of a change", self.id)
        require_text("the summary of a change", self.summary)
        if not isinstance(self.operator, Operator):
            raise TopologyInvalid(f"the operator of a change is {self.operator!r:.40}")
        if not isinstance(self.table, SlotTable):
            raise TopologyInvalid("the table of a change must be a SlotTable")
        _require_integer("started_at of a change", self.started_at, 0, _MAX_TIME_S)
        require_epoch("began_from of a change", self.began_from)
        _require_integer("the slots of a change", self.slots, 0, SLOTS)
        _require_integer("the step of a change", self.step, 1, SLOTS)
        for what, ids in (("arriving", self.arriving), ("leaving", self.leaving)):
            if not isinstance(ids, tuple) or len(set(ids)) != len(ids):
                raise TopologyInvalid(f"{what} of a change must be a tuple of distinct shard ids")
        if not isinstance(self.former, tuple) or not all(
            isinstance(shard, Shard) for shard in self.former
        ):
            raise TopologyInvalid("former of a change must be a tuple of Shard values")
        if self.paused is not None:
            require_text("the reason of a pause", self.paused)
        if type(self.aborting) is not bool:
            raise TopologyInvalid(f"aborting of a change must be a bool, not {self.aborting!r:.40}")


#: Phase -> (has a pending table, has a previous table).
_TABLES_OF_PHASE: Final = {
    Phase.STEADY: (False, False),
    Phase.PREPARED: (True, False),
    Phase.COMMITTED: (False, True),
}


@dataclass(frozen=True, slots=True)
class Topology:
    """Which shard owns which slot, at one epoch.

    ``cluster`` is drawn once and never changes; topologies of two clusters are strangers, whatever
    their epochs. While a planned change is under way ``pending`` is the table to come and
    ``previous`` the one that was; see ``Phase``. ``homes_since`` is the epoch in which a slot last
    got a home that it had not had: who goes by an older one may not know of it.
    """

    cluster: str
    epoch: int
    shards: tuple[Shard, ...]
    table: SlotTable
    phase: Phase = Phase.STEADY
    pending: SlotTable | None = None
    previous: SlotTable | None = None
    change: Change | None = None
    homes_since: int = 1
    _owner_by_slot: tuple[Shard, ...] = field(init=False, repr=False, compare=False)
    _shard_by_id: dict[str, Shard] = field(init=False, repr=False, compare=False)
    _other_by_slot: dict[int, Shard] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        require_id("the cluster", self.cluster)
        require_epoch("the epoch", self.epoch)
        require_epoch("homes_since", self.homes_since)
        if self.homes_since > self.epoch:
            raise TopologyInvalid(f"homes_since is {self.homes_since}, after epoch {self.epoch}")
        shard_by_id = self._checked_shards()
        self._check_tables(shard_by_id)
        self._check_change(shard_by_id)
        object.__setattr__(self, "_shard_by_id", shard_by_id)
        owner_by_slot = tuple(shard_by_id[owner] for owner in self.table.owners)
        object.__setattr__(self, "_owner_by_slot", owner_by_slot)

    def shard_of(self, name: str) -> Shard:
        """The shard that owns a channel's or a group's slot."""
        return self._owner_by_slot[slot_of(name)]

    def owner_of(self, slot: int) -> Shard:
        """The shard that owns a slot, 0 to 4095."""
        return self._owner_by_slot[slot]

    def other_home(self, slot: int) -> Shard | None:
        """Where the slot is served as well: the owner to come, or the one that was.

        None if it does not move, or if that shard is down.
        """
        return None if self.phase is Phase.STEADY else self._others().get(slot)

    @property
    def moving(self) -> tuple[int, ...]:
        """The slots that have an other home, ascending."""
        return () if self.phase is Phase.STEADY else tuple(self._others())

    def final_shards(self) -> tuple[Shard, ...]:
        """The shards when the change under way has ended; without one, the shards."""
        leaving = () if self.change is None else self.change.leaving
        return tuple(shard for shard in self.shards if shard.id not in leaving)

    def shard(self, shard_id: str) -> Shard:
        """The shard with that id; KeyError if there is none."""
        return self._shard_by_id[shard_id]

    def slots_of(self, shard_id: str) -> tuple[int, ...]:
        """The slots that the shard owns, ascending; KeyError for an unknown shard."""
        return self.table.slots_of(self._shard_by_id[shard_id].id)

    def _others(self) -> dict[int, Shard]:
        if self._other_by_slot is None:
            other = self.pending or self.previous
            pairs = zip(self.table.owners, other.owners if other else (), strict=True)
            found = {
                slot: self._shard_by_id[there]
                for slot, (here, there) in enumerate(pairs)
                if here != there and self._shard_by_id[there].state is not ShardState.DOWN
            }
            object.__setattr__(self, "_other_by_slot", found)
            return found
        return self._other_by_slot

    def _checked_shards(self) -> dict[str, Shard]:
        if not isinstance(self.shards, tuple) or not 1 <= len(self.shards) <= MAX_SHARDS:
            raise TopologyInvalid(f"a topology has a tuple of 1 to {MAX_SHARDS} shards")
        if not all(isinstance(shard, Shard) for shard in self.shards):
            raise TopologyInvalid("a topology has a tuple of Shard values")
        shard_by_id: dict[str, Shard] = {}
        urls: set[str] = set()
        for shard in self.shards:
            if shard.id in shard_by_id:
                raise TopologyInvalid(f"two shards have the id {shard.id!r}")
            if shard.url in urls:
                raise TopologyInvalid(
                    f"shard {shard.id!r} has the URL of another: {redacted_url(shard.url)!r}"
                )
            shard_by_id[shard.id] = shard
            urls.add(shard.url)
        return shard_by_id

    def _check_tables(self, shard_by_id: dict[str, Shard]) -> None:
        if not isinstance(self.phase, Phase):
            raise TopologyInvalid(f"the phase is {self.phase!r}, not one of Phase")
        found = (self.pending is not None, self.previous is not None)
        if found != _TABLES_OF_PHASE[self.phase]:
            raise TopologyInvalid(
                f"in phase {self.phase.value} a pending table is "
                f"{'needed' if _TABLES_OF_PHASE[self.phase][0] else 'not allowed'}, a previous one "
                f"{'needed' if _TABLES_OF_PHASE[self.phase][1] else 'not allowed'}"
            )
        for name in ("table", "pending", "previous"):
            table = getattr(self, name)
            if not isinstance(table, SlotTable) and (table is not None or name == "table"):
                raise TopologyInvalid(f"{name} must be a SlotTable, not {type(table).__name__}")
            # Messages may be left on a shard that went down after the change was committed.
            used = set() if table is None else set(table.owners)
            _check_owners(name, used, shard_by_id, down_allowed=name == "previous")

    def _check_change(self, shard_by_id: dict[str, Shard]) -> None:
        change = self.change
        if change is None:
            return
        if not isinstance(change, Change):
            raise TopologyInvalid(f"the change must be a Change, not {type(change).__name__}")
        if change.aborting and self.phase is not Phase.COMMITTED:
            raise TopologyInvalid(f"no round is being undone in phase {self.phase.value}")
        for what, ids in (("arriving", change.arriving), ("leaving", change.leaving)):
            for shard_id in ids:
                if shard_id not in shard_by_id:
                    raise TopologyInvalid(f"{what}: {shard_id!r} is not a shard")
        used = set(change.table.owners)
        _check_owners("the table of the change", used, shard_by_id, down_allowed=False)
        for shard_id in change.leaving:
            if shard_id in used:
                raise TopologyInvalid(f"shard {shard_id!r} is leaving, and gets slots")


def _check_owners(
    name: str, used: set[str], shard_by_id: dict[str, Shard], *, down_allowed: bool
) -> None:
    for owner in used:
        shard = shard_by_id.get(owner)
        if shard is None:
            raise TopologyInvalid(f"{name}: slots belong to {owner!r}, which is not a shard")
        if shard.state is ShardState.DOWN and not down_allowed:
            raise TopologyInvalid(f"{name}: slots belong to shard {owner!r}, which is down")
