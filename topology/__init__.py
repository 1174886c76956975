"""Which Redis shard owns which channel and group: the value, its planning and its stores."""

from topology.errors import (
    ChangeUnderWay,
    ClusterError,
    IllegalTransition,
    LockHeld,
    ShardUnreachable,
    StaleEpoch,
    StoreConfigError,
    StoreUnavailable,
    TopologyError,
    TopologyInvalid,
    TopologyTooLarge,
    TopologyUnavailable,
)
from topology.hashing import SLOTS, slot_of
from topology.model import (
    Change,
    Operator,
    Phase,
    Shard,
    ShardState,
    SlotTable,
    Topology,
    redacted_url,
)

__all__ = [
    "SLOTS",
    "Change",
    "ChangeUnderWay",
    "ClusterError",
    "IllegalTransition",
    "LockHeld",
    "Operator",
    "Phase",
    "Shard",
    "ShardState",
    "ShardUnreachable",
    "SlotTable",
    "StaleEpoch",
    "StoreConfigError",
    "StoreUnavailable",
    "Topology",
    "TopologyError",
    "TopologyInvalid",
    "TopologyTooLarge",
    "TopologyUnavailable",
    "redacted_url",
    "slot_of",
]
