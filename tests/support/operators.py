"""What an operator types, done by another process or by this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.support.changes import changes_of
from topology.model import Shard, ShardState, Topology


async def operate(store: str, *words: str, step: int = 512) -> Topology:
    """Do what ``cluster-layer shard ...`` does, to the end."""
    async with changes_of(store) as changes:
        before = await changes.decisions.read()
        return await changes.to(_wanted(before.shards, words), step=step)


def _wanted(shards: Sequence[Shard], words: Sequence[str]) -> list[Shard]:
    verb, what, *more = words
    if verb == "add":
        name, _, url = what.partition("=")
        return [*shards, Shard(name, url)]
    if verb == "remove":
        return [shard for shard in shards if shard.id != what]
    if verb == "drain":
        return [replace(s, state=ShardState.DRAINING) if s.id == what else s for s in shards]
    assert verb == "weight", words
    return [replace(s, weight=float(more[0])) if s.id == what else s for s in shards]
