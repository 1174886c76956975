"""What goes wrong; one cause per module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chaos.faults.base import Fault
from chaos.faults.blocked import HalfOpen, Isolated, Partition, RepliesBlocked, RequestsBlocked
from chaos.faults.process import ProcessKilled, ProcessPaused
from chaos.faults.reply_lost import ReplyLost
from chaos.faults.request_halved import RequestHalved
from chaos.faults.resets import ResetStorm
from chaos.faults.shard_death import AofRestart, BlankRestart, ReplicaPromoted, StaleRestart
from chaos.faults.shard_ill import Busy, OutOfMemory, ReadOnly, ShardPaused
from chaos.faults.slow import Latency, Sliced

FAULTS: Final[Mapping[str, type[Fault]]] = {
    fault.name: fault
    for fault in (
        ReplyLost,
        RequestHalved,
        HalfOpen,
        RequestsBlocked,
        RepliesBlocked,
        Partition,
        Isolated,
        Latency,
        Sliced,
        ResetStorm,
        BlankRestart,
        StaleRestart,
        AofRestart,
        ReplicaPromoted,
        ShardPaused,
        OutOfMemory,
        Busy,
        ReadOnly,
        ProcessKilled,
        ProcessPaused,
    )
}
