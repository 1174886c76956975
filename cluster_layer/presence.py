"""What a process tells the shards of itself, for whoever runs the cluster."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

from cluster_layer import scripts
from cluster_layer.batching import Command
from cluster_layer.keys import Keys

MAX_REASON = 200  # characters of a text in a report
MAX_UNREACHABLE = 100  # shards in a report
REPORT_S = 10.0  # between reports that say nothing new; in between, "as before" is enough


def _version() -> str:
    try:
        return version("cluster-layer")
    except PackageNotFoundError:  # a checkout on the path
        return "unknown"


class Presence:
    """The reports of one process. Its fields are set by whoever knows them, from any thread.

    `epoch` tells the epoch in use, `unreachable` shard -> why it can't be reached.
    """

    def __init__(
        self,
        process_id: str,
        prefix: str,
        epoch: Callable[[], int],
        unreachable: Callable[[], Mapping[str, str]],
        role: str = "process",
    ) -> None:
        self._epoch = epoch
        self._unreachable = unreachable
        self._about = {
            "id": process_id,
            "role": role,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "prefix": prefix,
            "version": _version(),
        }
        self._id = process_id
        self.receives = False
        #: The epoch whose duties this process has fulfilled: it serves every name at all its homes.
        #: One that receives nothing has no duties.
        self.settled = 0
        self.waiting_for: str | None = None

    def report(self) -> str:
        """What there is to say now, as JSON."""
        epoch = self._epoch()
        waiting_for = self.waiting_for
        return json.dumps(
            {
                **self._about,
                "receives": self.receives,
                "epoch": epoch,
                "settled": self.settled if self.receives else epoch,
                "unreachable": dict(list(self._unreachable().items())[:MAX_UNREACHABLE]),
                "waiting_for": waiting_for and waiting_for[:MAX_REASON],
            },
            separators=(",", ":"),
        )

    def command(self, keys: Keys, report: str | None = None) -> Command:
        """The command that tells a shard this report; None: what there is to say now."""
        cluster = keys.cluster
        return (
            *("EVALSHA", scripts.REPORT.sha, 2, cluster.reports, cluster.beats),
            *(self._id, self.report() if report is None else report, cluster.process("")),
        )

    def still_here(self, keys: Keys, shard_time_ms: float) -> Command:
        """The command that says "as before"; its reply is 0 if the shard knows of no report."""
        # XX: without a report there is nobody who would give the key its time to live.
        return ("ZADD", keys.cluster.beats, "XX", "CH", int(shard_time_ms), self._id)

    def farewell(self, keys: Keys) -> tuple[Command, Command]:
        """The commands that take the reports back."""
        cluster = keys.cluster
        return ("HDEL", cluster.reports, self._id), ("ZREM", cluster.beats, self._id)


class Teller:
    """What one shard has been told, so that a heartbeat says no more than it must."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._told: str | None = None
        self._until = 0.0

    def anew(self, keys: Keys, now: float) -> Command:
        """The command that tells everything; `now` in monotonic seconds."""
        report = self._presence.report()
        self._told, self._until = report, now + REPORT_S
        return self._presence.command(keys, report)

    def next(self, keys: Keys, shard_time_ms: float, now: float) -> Command:
        """The command of a heartbeat: what has changed, or that nothing has.

        Its reply is 0 if the shard has to be told `anew`.
        """
        if now >= self._until or self._told != self._presence.report():
            return self.anew(keys, now)
        return self._presence.still_here(keys, shard_time_ms)
