"""A table without history: slots and shards matched by weighted rendezvous under exact quotas.

The SHAKE-128 stream of a shard's id, read as little-endian 32-bit numbers, has that shard's hash
of slot s at index s; the pair costs -ln((hash + 1) / 2^32) / weight. Every slot asks shards, the
cheapest first; a shard keeps the cheapest slots up to its quota (deferred acceptance: Gale and
Shapley, 1962). Both sides rank by the same costs, so there is one stable outcome, whatever order
slots ask in, and it depends on the set of shards alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_128
from heapq import heappush, heappushpop
from math import exp, inf, log
from struct import Struct
from typing import Final

from topology.hashing import SLOTS
from topology.model import Shard

_HASHES: Final = Struct(f"<{SLOTS}I")
_HASH: Final = Struct("<I")

#: Of more shards than this ...
_MANY: Final = 64
#: ... about so many of the cheapest are ranked per slot at first: few slots ever ask more of them.
_RANKED: Final = 24


def matched(shards: Sequence[Shard], quota: Mapping[str, int]) -> tuple[str, ...]:
    """Owner of each slot; ``quota`` is how many each shard gets, and adds up to all slots."""
    able = [shard for shard in shards if quota[shard.id]]
    hashes = [shake_128(shard.id.encode()).digest(_HASHES.size) for shard in able]
    # A pair costs less than this with a probability of 1 - exp(-threshold * weight).
    threshold = inf
    if len(able) > _MANY:
        threshold = _RANKED / sum(shard.weight for shard in able)
    near: list[list[tuple[float, int]]] = [[] for _ in range(SLOTS)]
    for index, shard in enumerate(able):
        # Looked at more closely than need be, so that no rounding leaves one out.
        lowest, weight = 2**32 * exp(-threshold * shard.weight) - 2, shard.weight
        for slot, value in enumerate(_HASHES.unpack(hashes[index])):
            if value >= lowest and (cost := -log((value + 1) / 2**32) / weight) <= threshold:
                near[slot].append((cost, index))

    def ranked(slot: int) -> Iterator[tuple[float, int]]:
        """(cost, index) of all shards, the cheapest first."""
        yield from sorted(near[slot])
        if len(near[slot]) == len(able):
            return
        costs = (
            (-log((_HASH.unpack_from(hashes[i], _HASH.size * slot)[0] + 1) / 2**32) / one.weight, i)
            for i, one in enumerate(able)
        )
        yield from sorted(pair for pair in costs if pair[0] > threshold)

    return _accepted([ranked(slot) for slot in range(SLOTS)], [(s.id, quota[s.id]) for s in able])


def _accepted(
    choices: Sequence[Iterator[tuple[float, int]]], places: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    # A heap keeps its smallest on top; of negated costs that is the dearest.
    kept: list[list[tuple[float, int]]] = [[] for _ in places]
    for asking in range(SLOTS):
        slot: int | None = asking
        while slot is not None:
            cost, chosen = next(choices[slot])
            if len(kept[chosen]) < places[chosen][1]:
                heappush(kept[chosen], (-cost, slot))
                slot = None
            else:
                slot = heappushpop(kept[chosen], (-cost, slot))[1]
    owner_of = {
        slot: shard_id
        for (shard_id, _), offers in zip(places, kept, strict=True)
        for _, slot in offers
    }
    return tuple(owner_of[slot] for slot in range(SLOTS))
