"""What the exit codes mean, and which error has which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cluster_layer.errors import ConfigError, InvalidMessage, InvalidName
from topology import ClusterError, LockHeld, StoreConfigError
from topology.prechecks import Objection

REFUSED: Final = 1
USAGE: Final = 2
UNKNOWN: Final = 3
UNFINISHED: Final = 4
FOUND: Final = 5
WARNED: Final = 6
TIMED_OUT: Final = 7

MEANINGS: Final = {
    0: "done",
    REFUSED: "refused or failed, and provably nothing was changed",
    USAGE: "wrong usage: a bad argument, option, store URL or setting",
    UNKNOWN: "it may or may not have happened: look before trying again",
    UNFINISHED: "a change is under way and not at its end, or has ended elsewhere than planned",
    FOUND: "something was found that is not as it should be",
    WARNED: "nothing worse than a warning was found",
    TIMED_OUT: "the time was over before there were enough messages",
}


class Refused(ClusterError):
    """Something speaks against a change; nothing was changed."""

    def __init__(self, objections: Iterable[Objection]) -> None:
        found = tuple(objections)
        names = " ".join(f"--force {name}" for name in dict.fromkeys(o.check for o in found))
        reasons = "".join(f"\n  {objection}" for objection in found)
        super().__init__(f"refused, nothing was changed; {names} would do it all the same{reasons}")
        self.objections = found


class Unfinished(ClusterError):
    """A change was begun, and is not at the end that was planned for it."""

    definite = False


class Found(ClusterError):
    """What was looked at is not as it should be."""


def code_of(error: ClusterError) -> int:
    """The exit code of an error."""
    if isinstance(error, Unfinished):
        return UNFINISHED
    if isinstance(error, Found):
        return FOUND
    if isinstance(error, StoreConfigError | ConfigError | InvalidName | InvalidMessage):
        return USAGE
    return REFUSED if error.definite else UNKNOWN


def text_of(error: ClusterError) -> str:
    """What to tell, with the remedy that only the command line knows."""
    if isinstance(error, LockHeld):
        return f"{error}; if that one is gone, --steal takes the lock"
    return str(error)
