"""Lanes: the two ways per shard by which messages reach a process, each in order by itself.

They are its inbox (a stream) and its subscription (pub/sub). Each knows positions: entry ids in the
inbox, publication counters on the subscription.
"""

from __future__ import annotations

from typing import Final, NamedTuple

INBOX: Final = "inbox"
GROUP: Final = "group"


class Lane(NamedTuple):
    """One way by which messages arrive in order."""

    shard: str
    kind: str


class Lanes(dict[str, Lane]):
    """The lanes of one kind by shard, each made once: every message asks for one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, shard: str) -> Lane:
        lane = self[shard] = Lane(shard, self._kind)
        return lane
