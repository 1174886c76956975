"""Which mutant breaks what where: ``python -m tests.chaos.mutants.matrix`` prints a table.

Every mutant, and the layer itself, runs through the same scenarios, and through the one that it is
known to be caught by.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chaos.checkers import check
from chaos.checkers.base import Verdict
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import SCENARIOS
from tests.chaos.mutants import MUTANTS, Mutant
from topology.errors import ClusterError

#: Scenario -> seconds of writing.
COLUMNS: Final = {
    "direct/calm": 4.0,
    "groups/calm": 4.0,
    "mixed/calm": 4.0,
    "normal/reply-lost": 5.0,
    "mixed/shard-kill": 8.0,
    "mixed/shard-add": 12.0,
}


async def broken(
    mutant: Mutant | None, scenario: str, seed: int, seconds: float, drain_s: float = 2.0
) -> str:
    """The promises that it breaks there."""
    what = Run(SCENARIOS[scenario], seed, seconds, processes=2, drain_s=drain_s)
    if mutant is not None:
        what = replace(what, worker=mutant.worker, operator=mutant.operator)
    try:
        findings = check(history_of(await run(what, lambda _: None)))
    except ClusterError as error:
        return f"does not run ({type(error).__name__})"
    return " ".join(one.invariant for one in findings if one.verdict is Verdict.INVALID)


async def cells(mutant: Mutant | None) -> list[str]:
    return [await broken(mutant, name, 1, seconds) for name, seconds in COLUMNS.items()]


async def own(mutant: Mutant) -> str:
    found = await broken(mutant, mutant.scenario, mutant.seed, mutant.seconds, mutant.drain_s)
    return f"`{mutant.scenario}`: {found or 'nothing'}"


def show(name: str, row: Sequence[str]) -> None:
    print(f"| {name} | {' | '.join(row)} |", flush=True)


async def main() -> None:
    show("mutant", [*(f"`{name}`" for name in COLUMNS), "its own scenario"])
    show("---", ["---"] * (len(COLUMNS) + 1))
    show("(none)", [*await cells(None), ""])
    for mutant in MUTANTS:
        if len(sys.argv) < 2 or mutant.name in sys.argv[1:]:
            show(mutant.name, [*await cells(mutant), await own(mutant)])


if __name__ == "__main__":
    asyncio.run(main())
