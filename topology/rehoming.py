"""What comes before the slots of lost shards get other homes: those must have nothing of them.

A shard keeps the stored memberships of a slot that has moved away, or that was on its way there
when a change was aborted. Nobody tells it of a leave any more. A planned change deletes them before
the slot comes back; so must whoever gives it the slot because another shard is lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

from topology import transitions
from topology.errors import ClusterError
from topology.hashing import SLOTS
from topology.model import Topology
from topology.ports import Cluster

#: A home that does not answer in time gets its slots all the same: they must be served.
CLEAN_WITHIN_S: Final = 1.0


def unprepared_homes(topology: Topology, lost: Collection[str]) -> Mapping[str, list[int]]:
    """Shard -> the slots that it gets when these shards are lost, and does not serve now.

    TopologyInvalid as `transitions.rehome`.
    """
    after = transitions.rehome(topology, lost, "")
    found: defaultdict[str, list[int]] = defaultdict(list)
    for slot in range(SLOTS):
        home, other = after.owner_of(slot).id, topology.other_home(slot)
        if home != topology.owner_of(slot).id and (other is None or home != other.id):
            found[home].append(slot)
    return found


async def clean_for_rehoming(
    cluster: Cluster, topology: Topology, lost: Collection[str]
) -> Mapping[str, str]:
    """Delete leftovers where these shards' slots go; shard -> why that could not be done there.

    For exactly this topology, which must be the one that is changed then: until that is decided
    nobody stores a membership there. TopologyInvalid as `transitions.rehome`.
    """

    async def clean(shard: str, slots: Collection[int]) -> None:
        try:
            async with asyncio.timeout(CLEAN_WITHIN_S):
                await cluster.clean_members(topology, shard, slots)
        except TimeoutError:
            failed[shard] = f"no answer within {CLEAN_WITHIN_S:g} s"
        except ClusterError as error:
            failed[shard] = str(error)

    failed: dict[str, str] = {}
    homes = unprepared_homes(topology, lost)
    await asyncio.gather(*(clean(shard, slots) for shard, slots in homes.items()))
    return failed
