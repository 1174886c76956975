"""Walks every interleaving of a small model, and tells the shortest way to what must not be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Explored(Generic[S]):
    """How many states there are; if there is a violation, its name and the shortest way to it."""

    states: int
    ends: int
    violation: str | None
    trace: tuple[str, ...]

    def told(self) -> str:
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.violation} after\n{steps}"


def explore(
    start: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    violation: Callable[[S], str | None],
    violation_at_end: Callable[[S], str | None],
    *,
    limit: int = 1_000_000,
) -> Explored[S]:
    """Breadth first from the start; an end is a state from which no step is possible."""
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    waiting = deque([start])
    ends = 0
    while waiting:
        state = waiting.popleft()
        found = violation(state)
        if found is None:
            at_end = True
            for name, reached in steps(state):
                at_end = False
                if reached not in came_from:
                    came_from[reached] = (state, name)
                    waiting.append(reached)
            if at_end:
                ends += 1
                found = violation_at_end(state)
        if found is not None:
            return Explored(len(came_from), ends, found, _trace(came_from, state))
        assert len(came_from) <= limit, f"more than {limit} states"
    return Explored(len(came_from), ends, None, ())


def _trace(came_from: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    names = []
    while (origin := came_from[state]) is not None:
        state, name = origin
        names.append(name)
    return tuple(reversed(names))
