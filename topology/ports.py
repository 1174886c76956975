"""What topologies, and changes of them, need from the world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from topology.history import Entry, Holder
from topology.model import Operator, Shard, Topology


class TopologyStore(Protocol):
    """One place that holds the newest topology.

    All calls block, each with a bound, and may come from any thread. A store starts no thread and
    opens no connection before its first call; make it after a fork, not before.
    """

    def read(self) -> Topology | None:
        """The newest topology, None if there is none.

        TopologyInvalid if what is there is not one, StoreUnavailable if nobody can tell.
        """

    def write(self, topology: Topology, *, expected_epoch: int | None) -> None:
        """Replace the topology of the expected epoch; None: create the first one.

        StaleEpoch if the store holds another epoch, TopologyTooLarge before anything is written,
        TopologyInvalid if what is there is not a topology or the new epoch is not higher,
        StoreUnavailable, with ``definite`` false if the write may have been executed.
        """

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` when it is worth reading again; returns the cancel.

        A hint only: it may come without a change, one may stand for many changes, and it comes
        from a thread of the store's. ``notify`` must not block and must not raise.
        """

    def close(self) -> None:
        """End threads and connections; every later call raises StoreUnavailable. Idempotent."""


@dataclass(frozen=True, slots=True)
class StoreServer:
    """One server of a store, as seen from here."""

    address: str  #: host and port, or the path of a file
    reason: str | None = None  #: why it does not serve; None: it does
    latency_s: float | None = None
    role: str | None = None  #: in an ensemble; None: it does not say
    version: str | None = None

    @property
    def serves(self) -> bool:
        return self.reason is None


class Lock(Protocol):
    """A lock that was taken. It ends with its holder's process, at the latest some time later."""

    def held(self) -> bool:
        """Whether it is still ours; StoreUnavailable if nobody can tell."""

    def release(self) -> None:
        """Let others take it. Idempotent; never raises, for it ends by itself as well."""


class OperatorStore(TopologyStore, Protocol):
    """A store with what operators and monitors need beside the topology.

    Locks are a courtesy: they tell a second operator who is at work. What keeps two of them from
    spoiling each other's work is the epoch that a write expects.
    """

    def append_history(self, entry: Entry) -> None:
        """Keep an entry. StoreUnavailable; if not ``definite``, it may be there, perhaps twice."""

    def history(self, limit: int = 100) -> Sequence[Entry]:
        """The newest entries, oldest first. Entries that nobody can read are left out."""

    def lock(self, name: str, holder: Holder, *, steal: bool = False) -> Lock:
        """Take a lock, even from somebody else if told to. LockHeld says who has it."""

    def holder(self, name: str) -> Holder | None:
        """Who has the lock; None: nobody."""

    def servers(self) -> Sequence[StoreServer]:
        """How each server of the store is, in the order of its URL; changes nothing that matters.

        StoreUnavailable only if this store is closed: what does not serve is told as such.
        """


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What a process says of itself, and whether it is there."""

    id: str
    role: str  #: "process" or "monitor"
    host: str
    pid: int
    prefix: str
    version: str
    receives: bool
    alive: bool  #: a shard has its subscription
    epoch: int
    settled: int  #: the epoch whose duties it has fulfilled
    unreachable: Mapping[str, str]  #: shard -> why it can't be reached from there
    waiting_for: str | None
    age_s: float  #: since its latest report

    @property
    def operator(self) -> Operator:
        """Where it runs, as history entries tell it."""
        return Operator(self.role, self.host, self.pid)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is on a shard of slots that are served elsewhere; messages count those of queues."""

    queues: int
    messages: int
    members: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Messages that went to the new homes of their queues."""

    moved: int
    dropped: int  #: on their way when the new home died: they may have been delivered there


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What a shard says of itself; if it was not reached, only ``reason`` says anything."""

    shard: str
    reason: str | None = None  #: why it could not be reached
    latency_s: float | None = None
    version: str | None = None
    mode: str | None = None  #: "standalone"; "cluster" or "sentinel" are no shard's
    role: str | None = None  #: of replication: "master" or "slave"
    replicas: int | None = None
    incarnation: str | None = None
    epoch: int | None = None  #: that it serves; 0: it knows no topology
    memory_bytes: int | None = None
    max_memory_bytes: int | None = None  #: 0: no limit
    max_memory_policy: str | None = None
    persistence: str | None = None  #: "none", or what writes to disk: "rdb", "aof", "rdb, aof"
    commands_per_s: float | None = None
    connections: int | None = None
    max_connections: int | None = None
    clock_offset_s: float | None = None  #: its clock against ours
    keys: int | None = None
    missing_permissions: tuple[str, ...] = field(default=())  #: what it refuses us, if asked

    @property
    def reachable(self) -> bool:
        return self.reason is None


class Cluster(Protocol):
    """The shards, as whoever changes the topology sees them.

    Every call may be made again, whatever became of the one before. ClusterError: it did not
    succeed, or not altogether. What writes for a round is fenced with the topology that it is
    given: a shard that serves a newer one refuses it, so that a call that comes late does no harm.
    """

    async def install(self, topology: Topology, shards: Collection[str]) -> Mapping[str, str]:
        """Bring a topology to these shards; shard -> why, for those that do not serve it now.

        They were not reached, or serve a newer one, which stays.
        """

    async def processes(
        self,
        *,
        complete: bool = False,
        without: Collection[str] = (),
        within_s: float | None = None,
    ) -> Mapping[str, ProcessReport]:
        """Process id -> report, of all processes of which a reachable shard knows.

        The shards in ``without`` are not asked, and those that do not answer ``within_s`` count as
        out of reach: one that hangs would keep the caller waiting. With
        ``complete``, ClusterError unless all shards that are up have answered: that a process
        lives, the one that has not may be the only one to know.
        """

    async def clean_members(self, topology: Topology, shard: str, slots: Collection[int]) -> int:
        """Delete the memberships of groups of these slots, which are leftovers; how many groups.

        Fenced: ``topology`` is the one before the round that moves the slots there.
        """

    async def copy_members(self, topology: Topology) -> int:
        """Copy stored members of moving slots to the homes to come; how many were added there.

        Never over what is there. When all shards serve this prepared topology.
        """

    async def move_queues(self, topology: Topology) -> Moved:
        """Move what is left in queues at the other homes of moving slots to their homes.

        When all shards serve this committed topology. Batches that another coordinator has left
        half moved are moved too, or given back if their source is the home again.
        """

    async def leftovers(self, shard: str, slots: Collection[int]) -> Leftovers:
        """What a shard still has of these slots."""

    async def inspect(self, shard: Shard) -> ShardStatus:
        """What a shard says of itself, also one that is not in the topology. Never raises."""

    async def probe(self, shard: Shard, timeout_s: float) -> str | None:
        """Whether a shard answers in time; the reason if it does not. Never raises."""

    async def report(self, unreachable: Mapping[str, str]) -> None:
        """Tell the shards what this monitor cannot reach, shard -> why. Never raises."""

    async def close(self) -> None:
        """Close all connections. Idempotent."""
