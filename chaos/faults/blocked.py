"""Connections stay open and nothing passes, in one direction or in both."""

from typing import ClassVar

from chaos.environments.proxy import Direction, TcpProxy
from chaos.faults.base import LinkFault


class HalfOpen(LinkFault):
    """Bytes are taken and lost without a word, as by a firewall that forgot the connection."""

    name = "half-open"
    expects_unknown = True

    def strike_link(self, link: TcpProxy) -> None:
        link.blackhole("both", swallow=True)


class _Blocked(LinkFault):
    """Bytes wait and arrive late, when the block ends."""

    direction: ClassVar[Direction]
    expects_unknown = True

    def strike_link(self, link: TcpProxy) -> None:
        link.blackhole(self.direction)


class RequestsBlocked(_Blocked):
    """Nothing goes to the shard."""

    name = "requests-blocked"
    direction = "requests"


class RepliesBlocked(_Blocked):
    """Nothing comes from the shard."""

    name = "replies-blocked"
    direction = "replies"


class Partition(_Blocked):
    """Nothing passes either way."""

    name = "partition"
    direction = "both"


class Isolated(_Blocked):
    """Nothing passes between one process and all shards."""

    name = "isolated"
    direction = "both"

    @property
    def shards(self) -> tuple[str, ...]:
        return ()

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.process.name,)

    @property
    def links(self) -> list[TcpProxy]:
        return list(self.process.links.values())
