"""Connections stay open and nothing passes, one way or both: all kinds of partitions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from chaos.environments.base import Need
from chaos.environments.proxy import Direction
from chaos.faults.base import LinkFault


class HalfOpen(LinkFault):
    """Bytes are taken and lost without a word, as by a firewall that forgot the connection."""

    name = "half-open"
    expects_unknown = True

    def strike_link(self, link: Any) -> None:
        link.blackhole("both", swallow=True)


class _Blocked(LinkFault):
    """Bytes wait and arrive late, when the block ends."""

    needs = frozenset({Need.BLOCKS})
    direction: ClassVar[Direction] = "both"
    expects_unknown = True

    def strike_link(self, link: Any) -> None:
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


class _OfOneProcess(_Blocked):
    """All links of one process."""

    @property
    def shards(self) -> tuple[str, ...]:
        return ()

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.process.name,)

    @property
    def links(self) -> Sequence[Any]:
        index = self.process.index
        return [self.cluster.links[index, shard.index] for shard in self.cluster.shards]


class Isolated(_OfOneProcess):
    """Nothing passes between one process and all shards."""

    name = "isolated"


class Mute(_OfOneProcess):
    """Nothing that one process says reaches any shard; it hears them all."""

    name = "mute"
    direction = "requests"


class Deaf(_OfOneProcess):
    """One process hears nothing of any shard; they hear it."""

    name = "deaf"
    direction = "replies"


class _OfSomeLinks(_Blocked):
    """Links here and there: whoever is hurt, nobody is cut off from everything."""

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(sorted({self.cluster.shards[shard].id for _, shard in self.cut}))

    @property
    def processes(self) -> tuple[str, ...]:
        return tuple(sorted({self.cluster.processes[process].name for process, _ in self.cut}))

    @property
    def links(self) -> Sequence[Any]:
        return [self.cluster.links[pair] for pair in self.cut]

    @cached_property
    def cut(self) -> tuple[tuple[int, int], ...]:
        """Indexes of process and shard."""
        raise NotImplementedError


class Bridge(_OfSomeLinks):
    """Two halves of processes and shards see only themselves; one process is in both."""

    name = "bridge"

    @cached_property
    def cut(self) -> tuple[tuple[int, int], ...]:
        bridge = self.process.index
        processes = [one.index for one in self.cluster.processes if one.index != bridge]
        shards = [shard.index for shard in self.cluster.shards]
        left = set(self.chance.sample(processes, len(processes) // 2))
        near = set(self.chance.sample(shards, max(1, len(shards) // 2)))
        return tuple(
            (process, shard)
            for process in processes
            for shard in shards
            if (process in left) != (shard in near)
        )


class RandomPartition(_OfSomeLinks):
    """Each link by itself is blocked or not."""

    name = "random-partition"

    @cached_property
    def cut(self) -> tuple[tuple[int, int], ...]:
        links = sorted(self.cluster.links)
        cut = tuple(link for link in links if self.chance.random() < 0.5)
        return cut or (self.chance.choice(links),)
