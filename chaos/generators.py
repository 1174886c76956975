"""When which fault strikes whom: pure functions of a source of chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

_NO_DURATIONS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType({})


class Chance(Protocol):
    """``random.Random`` is one."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float, /) -> float: ...
    def randrange(self, stop: int, /) -> int: ...
    def choice(self, seq: Sequence[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Strike:
    """One planned fault: begins `at_s` after the begin of the run, healed after `duration_s`.

    `shard` and `process` are indexes; faults look at those that their kind needs. `everywhere`:
    a fault of links strikes the links of all processes.
    """

    fault: str
    at_s: float
    duration_s: float
    shard: int
    process: int
    everywhere: bool


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How long faults last and how much time lies between them, seconds.

    A pause shorter than a duration makes them overlap.
    """

    first_s: float = 1.5
    duration_s: tuple[float, float] = (1.2, 2.5)
    pause_s: tuple[float, float] = (5.5, 6.5)  # from one's begin to the next one's
    quiet_s: float = 3.0  # at the end
    in_turn: bool = False  # faults strike in the order in which they are named


def schedule(
    faults: Sequence[str],
    chance: Chance,
    *,
    seconds: float,
    shards: int,
    processes: int,
    rhythm: Rhythm,
    durations: Mapping[str, tuple[float, float]] = _NO_DURATIONS,
) -> tuple[Strike, ...]:
    """Strikes in order of time; the same arguments and chance give the same strikes.

    Every fault strikes once before any strikes again, as far as there is time. A fault that is
    bound to one shard ignores the draw. `durations` are those of faults that have one of their own.
    """
    strikes: list[Strike] = []
    waiting: list[str] = []
    at_s = rhythm.first_s
    while faults:
        waiting = waiting or list(faults)
        drawn = chance.randrange(len(waiting))
        fault = waiting.pop(0 if rhythm.in_turn else drawn)
        duration_s = chance.uniform(*durations.get(fault, rhythm.duration_s))
        if at_s + duration_s > seconds - rhythm.quiet_s and strikes:
            break
        strikes.append(
            Strike(
                fault,
                round(at_s, 3),
                round(duration_s, 3),
                chance.randrange(shards),
                chance.randrange(processes),
                chance.random() < 0.5,
            )
        )
        at_s += chance.uniform(*rhythm.pause_s)
    return tuple(strikes)
