"""The errors of the channel layer; every one says whether the operation may have happened.

::

    ClusterError (topology.errors)      definite = True
    ├── ConfigError                     also a ValueError
    ├── InvalidName                     also a TypeError
    │   └── NotOurChannel               also an AssertionError
    ├── InvalidMessage                  also a TypeError
    ├── MessageTooLarge                 also channels.exceptions.MessageTooLarge
    ├── ChannelFull                     also channels.exceptions.ChannelFull
    ├── ShardUnavailable
    ├── AnswersMissing
    ├── LayerClosed
    ├── DeliveryUnknown                 definite = False
    ├── MalformedEnvelope
    └── DecryptFailed

The fields of an error are its arguments, so that it survives pickling (Celery, multiprocessing).
"""

from __future__ import annotations

from channels import exceptions as channels_exceptions

from topology.errors import ClusterError


class ConfigError(ClusterError, ValueError):
    """The CONFIG of the layer is wrong; raised at construction, before anything was opened."""


class InvalidName(ClusterError, TypeError):
    """A channel or group name breaks the specification; nothing was sent to any shard."""


class NotOurChannel(InvalidName, AssertionError):
    """receive() on a process-specific channel of another process; nothing was read."""


class InvalidMessage(ClusterError, TypeError):
    """A message holds what the specification does not allow; nothing was sent to any shard."""


class MessageTooLarge(ClusterError, channels_exceptions.MessageTooLarge):
    """A message is larger than `message_size_limit`; nothing was sent. Sizes in encoded bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the message has {self.size:,} bytes when encoded, {self.limit:,} are allowed: "
            "send it in parts or raise CONFIG message_size_limit"
        )


class ChannelFull(ClusterError, channels_exceptions.ChannelFull):
    """The channel holds as many messages as its capacity; this one was not added."""

    def __init__(self, channel: str, depth: int, limit: int) -> None:
        super().__init__(channel, depth, limit)
        self.channel = channel
        self.depth = depth
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.channel} is full: {self.depth} messages wait, its capacity is {self.limit}"


class ShardUnavailable(ClusterError):
    """The shard could not be asked, or it refused; provably not executed, may be tried again."""

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(shard, reason)
        self.shard = shard
        self.reason = reason

    def __str__(self) -> str:
        return f"shard {self.shard} is unavailable ({self.reason}); nothing was executed"


class DeliveryUnknown(ClusterError):
    """The shard was asked and its answer is missing; it may have been executed, never repeat it."""

    definite = False

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(shard, reason)
        self.shard = shard
        self.reason = reason

    def __str__(self) -> str:
        return f"no answer from shard {self.shard} ({self.reason}); it may have been executed"


class AnswersMissing(ClusterError):
    """Not all processes have told their members of a group; asking has changed nothing.

    `known`: the names that are known all the same; empty if only their number was wanted.
    """

    def __init__(
        self, group: str, missing: int, asked: int, timeout_s: float, known: frozenset[str]
    ) -> None:
        super().__init__(group, missing, asked, timeout_s, known)
        self.group = group
        self.missing = missing
        self.asked = asked
        self.timeout_s = timeout_s
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.missing} of {self.asked} processes have not answered within "
            f"{self.timeout_s:g} s who their members of group {self.group} are; ask again, or "
            "give it more time"
        )


class LayerClosed(ClusterError):
    """close() was called while receive() waited; no message was taken."""


class MalformedEnvelope(ClusterError):
    """Bytes from a shard that are no message of ours; the receiver drops and counts them."""


class DecryptFailed(ClusterError):
    """A body that none of the keys opens for this name; the receiver drops and counts it."""
