"""A Django Channels layer on many Redis shards: consistent hashing, at most once, self-healing."""

from cluster_layer.errors import (
    ChannelFull,
    ConfigError,
    DeliveryUnknown,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NotOurChannel,
    ShardUnavailable,
)
from cluster_layer.gaps import Gap, GapReason
from cluster_layer.layer import ClusterChannelLayer
from topology.errors import ClusterError

__all__ = [
    "ChannelFull",
    "ClusterChannelLayer",
    "ClusterError",
    "ConfigError",
    "DeliveryUnknown",
    "Gap",
    "GapReason",
    "InvalidMessage",
    "InvalidName",
    "MessageTooLarge",
    "NotOurChannel",
    "ShardUnavailable",
]
