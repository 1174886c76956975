"""What goes wrong; one cause per module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chaos.faults.base import Fault
from chaos.faults.blocked import (
    Bridge,
    Deaf,
    HalfOpen,
    Isolated,
    Mute,
    Partition,
    RandomPartition,
    RepliesBlocked,
    RequestsBlocked,
)
from chaos.faults.changes import ShardAdded, ShardDrained, ShardRemoved, ShardWeighed
from chaos.faults.changes_disturbed import (
    ChangeGarbled,
    ChangeRolledBack,
    ChangeUnseen,
    OperatorKilled,
)
from chaos.faults.process import ClockStep, LoopBlocked, ProcessKilled, ProcessPaused, Upgrade
from chaos.faults.rehoming import MonitorKilled, ShardLost
from chaos.faults.reply_lost import ReplyLost
from chaos.faults.request_halved import RequestHalved
from chaos.faults.resets import ResetStorm
from chaos.faults.shard_death import (
    AofRestart,
    BlankRestart,
    ReplicaPromoted,
    StaleRestart,
    TwoPrimaries,
)
from chaos.faults.shard_ill import (
    Busy,
    MaxClients,
    OutOfMemory,
    ReadOnly,
    ShardClock,
    ShardPaused,
    SlowDisk,
)
from chaos.faults.slow import Bandwidth, Latency, Sliced
from chaos.faults.unplugged import Unplugged
from chaos.faults.zookeeper import (
    EnsembleLost,
    EpochRollback,
    QuorumLost,
    ServerKilled,
    SessionExpired,
    StaleRead,
    ZnodeDeleted,
    ZnodeGarbage,
)

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
        Mute,
        Deaf,
        Bridge,
        RandomPartition,
        Latency,
        Bandwidth,
        Sliced,
        ResetStorm,
        BlankRestart,
        StaleRestart,
        AofRestart,
        ReplicaPromoted,
        TwoPrimaries,
        ShardPaused,
        OutOfMemory,
        MaxClients,
        SlowDisk,
        Busy,
        ReadOnly,
        ShardClock,
        ProcessKilled,
        ProcessPaused,
        LoopBlocked,
        ClockStep,
        Upgrade,
        ServerKilled,
        QuorumLost,
        EnsembleLost,
        SessionExpired,
        StaleRead,
        ZnodeGarbage,
        ZnodeDeleted,
        EpochRollback,
        ShardAdded,
        ShardRemoved,
        ShardDrained,
        ShardWeighed,
        OperatorKilled,
        ChangeUnseen,
        ChangeGarbled,
        ChangeRolledBack,
        ShardLost,
        MonitorKilled,
        Unplugged,
    )
}
