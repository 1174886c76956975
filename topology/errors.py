"""The root of the error tree; every error says whether the operation may have happened.

::

    ClusterError                 root of the whole project
    └── TopologyError            about the topology; nothing changed unless it says so
        ├── TopologyInvalid      a topology, a plan or its bytes are wrong
        ├── TopologyTooLarge     encoded, it is larger than a store takes
        ├── StaleEpoch           made from an epoch that is no longer the newest
        ├── ChangeUnderWay       the topology is in the middle of another change
        ├── IllegalTransition    the step is not possible at this stage of a change
        ├── ShardUnreachable     a shard did not do what a change needs
        ├── LockHeld             somebody else is at work
        ├── TopologyUnavailable  neither a store nor a last-good copy has a topology
        ├── StoreUnavailable     the store did not answer, or refused
        └── StoreConfigError     a store's URL or option is wrong
"""

from __future__ import annotations


class ClusterError(Exception):
    """Root of the project's errors.

    ``definite`` is true when the operation provably did not happen. Whoever tries again reads
    this attribute, never the message.
    """

    definite: bool = True


class TopologyError(ClusterError):
    """Something about the topology; nothing was changed unless ``definite`` is false."""


class TopologyInvalid(TopologyError, ValueError):
    """A topology, a plan or encoded bytes break a rule; the text names the rule and the value."""


class TopologyTooLarge(TopologyError):
    """The encoded topology is larger than a store takes; nothing was written."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the encoded topology has {size} bytes, a store takes {limit}: "
            "use fewer shards, or shorter shard ids and URLs"
        )
        self.size = size
        self.limit = limit

    def __reduce__(self) -> tuple[type[TopologyTooLarge], tuple[int, int]]:
        return type(self), (self.size, self.limit)


class StaleEpoch(TopologyError):
    """The change was made from another epoch than the newest; read again and decide again.

    ``found`` is None when there is no topology at all.
    """

    def __init__(self, expected: int | None, found: int | None) -> None:
        wanted = "no topology yet" if expected is None else f"epoch {expected}"
        actual = "there is none" if found is None else f"it has epoch {found}"
        super().__init__(f"the change expects {wanted}, but {actual}: read it again, then decide")
        self.expected = expected
        self.found = found

    def __reduce__(self) -> tuple[type[StaleEpoch], tuple[int | None, int | None]]:
        return type(self), (self.expected, self.found)


class ChangeUnderWay(TopologyError):
    """Another planned change has begun and must be finished or aborted first."""


class IllegalTransition(TopologyError):
    """The step is not possible at this stage of the change under way, or there is none."""


class ShardUnreachable(TopologyError):
    """A shard could not be asked to do what a change needs; asking again does no harm."""

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(f"shard {shard!r}: {reason}")
        self.shard = shard
        self.reason = reason

    def __reduce__(self) -> tuple[type[ShardUnreachable], tuple[str, str]]:
        return type(self), (self.shard, self.reason)


class LockHeld(TopologyError):
    """Somebody else holds the lock; ``holder`` says who, None if nobody can tell."""

    def __init__(self, name: str, holder: object | None) -> None:
        super().__init__(f"{holder or 'somebody'} holds the lock {name!r}")
        self.name = name
        self.holder = holder

    def __reduce__(self) -> tuple[type[LockHeld], tuple[str, object | None]]:
        return type(self), (self.name, self.holder)


class TopologyUnavailable(TopologyError):
    """Neither the store nor the last-good copy has a topology to start from."""


class StoreUnavailable(TopologyError):
    """The store did not answer in time, lost the connection or refused.

    A write that may have been executed has ``definite`` set to false: read before trying again.
    """

    def __init__(self, message: str, *, definite: bool = True) -> None:
        super().__init__(message)
        self.definite = definite

    def __reduce__(self) -> tuple[type[StoreUnavailable], tuple[str], dict[str, bool]]:
        return type(self), (str(self),), {"definite": self.definite}


class StoreConfigError(TopologyError, ValueError):
    """A store's URL or option is wrong; the text names the setting, the value and the remedy."""
