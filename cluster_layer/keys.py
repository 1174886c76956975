"""Names become Redis keys.

Every key begins ``{prefix}:{incarnation}:``. The incarnation names one life of one Redis server
process, so whatever a restart, a dump or a promoted replica brings back lies under a dead
incarnation and is never read again.
"""

from __future__ import annotations

from collections.abc import Mapping


def incarnation_of(run_id: str, replication_id: str) -> str:
    """One life of a server as one primary: 16 hex digits, the same for every client.

    The run id changes when the process restarts. The replication id changes when a replica is
    promoted, which also happens to a former primary that is promoted again without a restart:
    by then its data set is a copy of somebody else's past.
    """
    return run_id[:8] + replication_id[:8]


def parse_info(text: str) -> Mapping[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}


class ClusterKeys:
    """What a cluster keeps on one life of one shard, whatever the prefixes of its layers."""

    __slots__ = ("_process", "announcements", "beats", "epoch", "probe", "reports", "topology")

    def __init__(self, cluster: str, incarnation: str, db: int) -> None:
        base = f"cluster-layer:{cluster}:{incarnation}:"
        self.epoch = (base + "e").encode()  # string: the epoch that this shard serves
        self.topology = (base + "t").encode()  # string: the encoded topology of that epoch
        self.reports = (base + "p").encode()  # hash: process id -> report
        self.beats = (base + "b").encode()  # sorted set: process id by time of its latest report
        self.announcements = f"{base}a{db}".encode()  # pub/sub channel: new epochs
        self.probe = base + "x"  # begins the names of keys that are there for a moment only
        self._process = f"{base}p{db}:".encode()

    def process(self, process_id: str) -> bytes:
        """Pub/sub channel: subscribed to by a process for as long as it receives here."""
        return self._process + process_id.encode()


class Keys:
    """The keys of one layer (prefix) on one life of one shard (incarnation), in one database.

    Pub/sub knows no databases, so its channel names have the number in them. `cluster` holds what
    all prefixes have in common.
    """

    __slots__ = (
        "_batch",
        "_group",
        "_inbox",
        "_members",
        "_queue",
        "_receipt",
        "_reply",
        "base",
        "cluster",
        "control",
        "entries",
        "incarnation",
        "log",
        "seq",
    )

    def __init__(self, prefix: str, cluster: str, incarnation: str, db: int) -> None:
        self.incarnation = incarnation
        self.cluster = ClusterKeys(cluster, incarnation, db)
        self.base = base = f"{prefix}:{incarnation}:"
        self._inbox = (base + "i:").encode()
        self._queue = (base + "q:").encode()
        self._batch = (base + "v:").encode()
        self._receipt = (base + "w:").encode()
        self._members = (base + "m:").encode()
        self._group = f"{base}g{db}:".encode()
        self._reply = (base + "r:").encode()
        self.control = f"{base}c{db}".encode()
        self.seq = (base + "s").encode()  # position of the last publication
        self.entries = (base + "e").encode()  # position of the last entry of any inbox
        self.log = (base + "l").encode()

    def inbox(self, name: str) -> bytes:
        """Stream: a process's inbox; ``name`` is the channel name up to and including ``!``."""
        return self._inbox + name.encode()

    def queue(self, channel: str) -> bytes:
        """List: the messages of a normal channel."""
        return self._queue + channel.encode()

    def batch(self, channel: str) -> bytes:
        """List: messages of a normal channel that are on their way to another shard."""
        return self._batch + channel.encode()

    def receipt(self, token: str) -> bytes:
        """String: such a batch has been taken in here."""
        return self._receipt + token.encode()

    def members(self, group: str) -> bytes:
        """Sorted set: the members that another process added, by deadline (ms, shard's clock)."""
        return self._members + group.encode()

    def group(self, group: str) -> bytes:
        """Pub/sub channel: a group's messages and membership controls."""
        return self._group + group.encode()

    def group_of(self, channel: bytes) -> str:
        """The group whose pub/sub channel this is."""
        return channel[len(self._group) :].decode()

    def reply(self, token: str) -> bytes:
        """List: the confirmations of one flush."""
        return self._reply + token.encode()
