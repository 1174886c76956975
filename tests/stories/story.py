"""Transitions told as text files: commands, a line, the expected state.

::

    # A comment.
    init a b
    ----
    epoch 1  idle
    a 2,048
    b 2,048

A command that is refused answers with its reason. ``STORIES=rewrite`` in the environment writes
what was answered into the files, for people to read before they commit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.topology.strategies import CLUSTER, OPERATOR
from topology import transitions
from topology.codec import decode, encode
from topology.errors import TopologyError
from topology.model import Shard, ShardState, SlotTable, Topology
from topology.planning import initial_topology, plan, plan_back
from topology.plans import Plan
from topology.transitions import stage_of


@dataclass(frozen=True)
class Scene:
    """A command, what is expected, and the comment above it."""

    comment: str
    command: str
    expected: str

    def __str__(self) -> str:
        return f"{self.comment}{self.command}\n----\n{self.expected}"


def scenes_of(path: Path) -> Iterator[Scene]:
    """The scenes of a story; they are separated by empty lines."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        lines = block.splitlines()
        count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        comment = "".join(f"{line}\n" for line in lines[:count])
        assert lines[count + 1] == "----", f"{path.name}: no line after {lines[count]!r}"
        yield Scene(comment, lines[count], "\n".join(lines[count + 2 :]))


class Stage:
    """Where the commands of a story are played."""

    def __init__(self) -> None:
        self.topology: Topology
        self._planned: Plan
        self._kept: Topology

    def play(self, command: str) -> str:
        """The state after the command, or why it was refused."""
        verb, *words = command.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        names = [word for word in words if "=" not in word]
        try:
            result = getattr(self, f"_{verb}")(names, options)
        except TopologyError as error:
            return f"refused: {error}"
        if isinstance(result, Topology):
            self.topology = decode(encode(result))
            assert self.topology == result
        return result if isinstance(result, str) else self._shown()

    # -- commands

    def _init(self, names: list[str], weights: dict[str, str]) -> Topology:
        return initial_topology([_shard(name, weights) for name in names], cluster=CLUSTER)

    def _plan(self, words: list[str], options: dict[str, str]) -> str:
        """plan add c, plan drain a, plan remove a, plan weight a=2, plan up a, plan back."""
        verb, names = words[0], words[1:]
        now, summary = self.topology.shards, " ".join([*words, *map("=".join, options.items())])
        if verb == "back":
            self._planned = plan_back(self.topology, self._kept, summary)
            return self._plan_shown()
        wanted = {
            "add": [*now, *(_shard(name, options) for name in names)] if verb == "add" else [],
            "remove": [shard for shard in now if shard.id not in names],
            "drain": [_if(shard, names, state=ShardState.DRAINING) for shard in now],
            "up": [_if(shard, names, state=ShardState.UP) for shard in now],
            "weight": [replace(s, weight=float(options.get(s.id, s.weight))) for s in now],
        }
        self._planned = plan(self.topology, wanted[verb], summary)
        return self._plan_shown()

    def _plan_shown(self) -> str:
        flows = self._planned.flows().items()
        return "\n".join(f"{a} -> {b} {len(slots):,}" for (a, b), slots in flows) or "no moves"

    def _begin(self, _: list[str], options: dict[str, str]) -> Topology:
        return transitions.begin(
            self.topology,
            self._planned,
            change_id="1" * 16,
            operator=OPERATOR,
            started_at=1_700_000_000,
            step=int(options.get("step", "4096")),
        )

    def _keep(self, _: list[str], __: dict[str, str]) -> str:
        self._kept = self.topology
        return "kept"

    def _same(self, _: list[str], __: dict[str, str]) -> str:
        """Whether table and shards are those that were kept."""
        now, kept = self.topology, self._kept
        table = "same" if now.table == kept.table else "other"
        shards = "same" if set(now.shards) == set(kept.shards) else "other"
        return f"table {table}, shards {shards}"

    def _prepare(self, _: list[str], __: dict[str, str]) -> Topology:
        return transitions.prepare(self.topology)

    def _commit(self, _: list[str], __: dict[str, str]) -> Topology:
        return transitions.commit(self.topology)

    def _finish(self, _: list[str], __: dict[str, str]) -> Topology:
        return transitions.finish(self.topology)

    def _abort(self, _: list[str], __: dict[str, str]) -> Topology:
        return transitions.abort(self.topology)

    def _pause(self, words: list[str], _: dict[str, str]) -> Topology:
        return transitions.pause(self.topology, " ".join(words))

    def _resume(self, _: list[str], __: dict[str, str]) -> Topology:
        return transitions.resume(self.topology)

    def _throttle(self, words: list[str], _: dict[str, str]) -> Topology:
        return transitions.throttle(self.topology, int(words[0]))

    def _rehome(self, names: list[str], _: dict[str, str]) -> Topology:
        return transitions.rehome(self.topology, names, f"{' and '.join(names)} lost")

    # -- the state, as text

    def _shown(self) -> str:
        topology = self.topology
        change = topology.change
        lines = [f"epoch {topology.epoch}  {stage_of(topology).name.lower()}"]
        if change is not None:
            left = len(transitions.differing(topology.table, change.table))
            goal = f"{change.slots - left:,} of {change.slots:,} slots, step {change.step:,}"
            paused = "" if change.paused is None else f", paused: {change.paused}"
            lines.append(f"{change.summary}: {goal}{paused}")
        lines += [self._shard_shown(shard) for shard in topology.shards]
        for name, table in (("pending", topology.pending), ("previous", topology.previous)):
            if table is not None:
                lines.append(
                    f"{name}: {_counts(table)}; {len(topology.moving):,} slots have two homes"
                )
        return "\n".join(lines)

    def _shard_shown(self, shard: Shard) -> str:
        slots = len(self.topology.slots_of(shard.id))
        weight = "" if shard.weight == 1 else f"  weight {shard.weight:g}"
        state = "" if shard.state is ShardState.UP else f"  {shard.state.value}"
        return f"{shard.id} {slots:,}{weight}{state}"


def _counts(table: SlotTable) -> str:
    return ", ".join(f"{shard} {count:,}" for shard, count in sorted(table.counts().items()))


def _shard(name: str, weights: dict[str, str]) -> Shard:
    return Shard(name, f"redis://{name}:6379", float(weights.get(name, 1)))


def _if(shard: Shard, names: list[str], *, state: ShardState) -> Shard:
    return replace(shard, state=state) if shard.id in names else shard
