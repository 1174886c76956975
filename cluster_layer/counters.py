"""What the layer counts: traffic per shard and losses per reason, for people and for metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from cluster_layer.buffers import Loss


@dataclass(slots=True)
class ShardCounters:
    """Traffic of this process with one shard since the layer was made."""

    sent: int = 0  # messages appended to inboxes and queues
    published: int = 0  # group messages
    refused: int = 0  # writes that definitely did not happen
    unknown: int = 0  # writes of unknown outcome
    received: int = 0  # messages that arrived, by whichever way
    missed: int = 0  # publications, to any group, while this process's subscription was cut
    reconnects: int = 0  # times a connection was opened again after it had been lost


class Counters:
    """All counters of one layer. Increments are made under the interpreter's lock; a reading is
    not a snapshot."""

    def __init__(self) -> None:
        self.shards: defaultdict[str, ShardCounters] = defaultdict(ShardCounters)
        self.lost: Counter[Loss] = Counter()
        # Of messages sent with confirm=False, of which no caller was told.
        self.unconfirmed = {"full": 0, "unavailable": 0, "unknown": 0}

    def lose(self, reason: Loss, count: int = 1) -> None:
        self.lost[reason] += count

    def as_dict(self) -> dict[str, Any]:
        return {
            "shards": {shard: asdict(counters) for shard, counters in list(self.shards.items())},
            "unconfirmed": dict(self.unconfirmed),
            "lost": {reason.value: count for reason, count in list(self.lost.items())},
        }
