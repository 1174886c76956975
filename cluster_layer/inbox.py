"""The inbox: how messages for process-specific channels arrive.

One stream per name up to ``!``, read from a cursor of our own. Reading changes nothing, so a lost
reply costs nothing; the cursor is kept per incarnation and never goes back, so nothing comes twice,
whichever connection reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import monotonic
from typing import Any, Protocol, TypeAlias

from cluster_layer.batching import Command
from cluster_layer.connection import Connection
from cluster_layer.controls import MAX_DIGITS
from cluster_layer.keys import Keys
from cluster_layer.links import Link
from cluster_layer.reader import Reader
from cluster_layer.session import CommandRefused

BLOCK_MS = 1000  # how long the shard keeps a read waiting; also how soon a dead link is noticed
ENTRIES = 256  # per stream and read
KEEP_ALIVE_S = 20.0  # between extensions of the streams' time to live
MAX_INCARNATIONS = 64

START = b"0-0"


class Cursors:
    """How far each inbox has been read, per incarnation; outlives connections and loops."""

    def __init__(self) -> None:
        self._by_incarnation: dict[str, dict[str, bytes]] = {}

    def of(self, incarnation: str) -> dict[str, bytes]:
        """Inbox name -> id of the last entry that was taken."""
        cursors = self._by_incarnation.pop(incarnation, {})
        self._by_incarnation[incarnation] = cursors  # the latest used comes last
        if len(self._by_incarnation) > MAX_INCARNATIONS:
            self._by_incarnation.pop(next(iter(self._by_incarnation)))
        return cursors


# Position, when it was added (ms of the shard's clock), envelope; an entry that is none of ours has
# position 0 and no envelope. A bare tuple: there is one for every message.
Entry: TypeAlias = tuple[int, int, bytes]


class InboxOwner(Protocol):
    """Whoever the entries are for."""

    def inboxes_on(self, shard: str) -> Collection[str]: ...

    def on_entries(
        self, shard: str, incarnation: str, now_ms: int, entries: Sequence[Entry]
    ) -> None:
        """Entries in the order of their positions, as of this moment of the shard's clock."""


class InboxReader(Reader[Connection]):
    """Reads this process's inboxes on one shard."""

    connection_class = Connection

    def __init__(self, link: Link, cursors: Cursors, owner: InboxOwner, expiry_ms: int) -> None:
        self._cursors = cursors
        self._owner = owner
        self._expiry_ms = expiry_ms
        self._reading: frozenset[str] = frozenset()
        self._kept_alive_at = 0.0
        super().__init__(link)

    def look_again(self) -> bool:
        """The set of inboxes has changed; True: there are some that are not read at the moment."""
        reads_all = self._reading.issuperset(self._owner.inboxes_on(self._link.shard))
        if not reads_all:
            self._link.interrupt(self._connection, self.look_again)
        return not reads_all

    async def read_to_end(self) -> None:
        """Take everything that is in the inboxes now. ShardUnavailable, DeliveryUnknown.

        Uses the command link, so it does not wait for the blocking read.
        """
        connection = await self._link.ready()
        keys = self._link.keys
        more = True
        while more:
            commands, names = self._commands(keys, block=False)
            replies = await connection.execute(*commands)
            more = self._take(keys, replies[-2], replies[-1], names)

    async def skip_to_end(self) -> None:
        """Ignore everything that is in the inboxes now, also what is on its way to us."""
        connection = await self._link.ready()
        keys = self._link.keys
        cursors = self._cursors.of(keys.incarnation)
        for name in list(self._owner.inboxes_on(self._link.shard)):
            try:
                info = await connection.execute(("XINFO", "STREAM", keys.inbox(name)))
            except CommandRefused:
                continue  # there is no such stream
            last = dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"]
            if _id_of(last) > _id_of(cursors.get(name, START)):
                cursors[name] = last

    # -- internals

    async def _read(self, connection: Connection, keys: Keys) -> None:
        trimmed: dict[str, bytes] = {}
        while True:
            self.progress += 1
            commands, names = self._commands(keys, block=True)
            self._reading = frozenset(names)
            replies = await connection.execute(
                *self._trims(keys, trimmed),
                *commands,
                timeout_s=BLOCK_MS / 1000 + connection.timeout_s,
            )
            self._take(keys, replies[-2], replies[-1], names)

    def _commands(self, keys: Keys, *, block: bool) -> tuple[list[Command], list[str]]:
        """TIME first: whatever had been added before that moment is in the reply of XREAD."""
        names = list(self._owner.inboxes_on(self._link.shard))
        cursors = self._cursors.of(keys.incarnation)
        ids = [cursors.get(name, START) for name in names]
        blocking: Command = ("BLOCK", BLOCK_MS) if block else ()
        streams = [keys.inbox(name) for name in names]
        read = ("XREAD", "COUNT", ENTRIES, *blocking, "STREAMS", *streams, *ids)
        return [("TIME",), read], names

    def _trims(self, keys: Keys, trimmed: dict[str, bytes]) -> list[Command]:
        """Commands that drop what has been taken, and keep the streams alive while we are.

        `trimmed` is how far that was done before on this connection; it is brought up to date.
        """
        cursors = self._cursors.of(keys.incarnation)
        trims: list[Command] = []
        for name, cursor in cursors.items():
            if trimmed.get(name) != cursor:
                trimmed[name] = cursor
                milliseconds, _, sequence = cursor.partition(b"-")
                following = b"%b-%d" % (milliseconds, int(sequence) + 1)
                trims.append(("XTRIM", keys.inbox(name), "MINID", following))
        now = monotonic()
        if now - self._kept_alive_at > KEEP_ALIVE_S:
            self._kept_alive_at = now
            # A stream that vanishes forgets its last id; with a clock that was set back, new
            # entries would hide behind our cursor.
            ttl_ms = self._expiry_ms + 60_000
            trims += [("PEXPIRE", keys.inbox(name), ttl_ms) for name in cursors]
        return trims

    def _take(self, keys: Keys, time: list[bytes], streams: Any, names: list[str]) -> bool:
        """Hand over the entries of a reply in order of positions; True: there may be more."""
        if not streams:
            return False
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        cursors = self._cursors.of(keys.incarnation)
        name_of = {keys.inbox(name): name for name in names}
        limit: int | None = None
        found: list[tuple[Entry, str, bytes]] = []
        for stream, pairs in streams:
            name = name_of[stream]
            if len(pairs) >= ENTRIES:
                # Beyond this position the other streams are ahead of what we know of this one.
                last, _, _ = _entry(*pairs[-1])
                limit = last if limit is None else min(last, limit)
            unseen = _after(cursors.get(name, START), pairs)
            found += [(_entry(entry_id, fields), name, entry_id) for entry_id, fields in unseen]
        if len(streams) > 1:
            found.sort(key=_position)
            if limit is not None:
                found = [one for one in found if one[0][0] <= limit]
        for _, name, entry_id in found:
            cursors[name] = entry_id
        entries = [entry for entry, _, _ in found]
        self._owner.on_entries(self._link.shard, keys.incarnation, now_ms, entries)
        return limit is not None


def _after(cursor: bytes, pairs: list[Any]) -> list[Any]:
    """What another connection of ours has not read meanwhile; ids rise."""
    seen = _id_of(cursor)
    if _id_of(pairs[0][0]) > seen:
        return pairs
    return [pair for pair in pairs if _id_of(pair[0]) > seen]


def _id_of(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _entry(entry_id: bytes, fields: list[bytes]) -> Entry:
    if len(fields) == 4 and fields[0] == b"m" and fields[2] == b"p":
        _, data, _, position = fields
    else:
        values = dict(zip(fields[::2], fields[1::2], strict=False))
        data, position = values.get(b"m", b""), values.get(b"p", b"")
    is_position = position.isdigit() and len(position) <= MAX_DIGITS
    return int(position) if is_position else 0, int(entry_id.partition(b"-")[0]), data


def _position(found: tuple[Entry, str, bytes]) -> int:
    return found[0][0]
