"""Which mutant breaks what where: ``python -m tests.chaos.mutants.matrix`` prints a table.

Every mutant runs through every scenario in which any of them is caught.
"""

from __future__ import annotations

import asyncio
import sys

from chaos.checkers import check
from chaos.checkers.base import Verdict
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import SCENARIOS
from tests.chaos.mutants import MUTANTS, Mutant
from topology.errors import ClusterError

SECONDS = 9.0


async def broken(mutant: Mutant, scenario: str, seed: int) -> str:
    """The promises that it breaks there."""
    what = Run(SCENARIOS[scenario], seed, SECONDS, processes=2, worker=mutant.worker, drain_s=3.0)
    try:
        findings = check(history_of(await run(what, lambda _: None)))
    except ClusterError as error:
        return f"does not run ({type(error).__name__})"
    return " ".join(one.invariant for one in findings if one.verdict is Verdict.INVALID)


async def main() -> None:
    seeds = {mutant.scenario: mutant.seed for mutant in MUTANTS}
    print(f"| mutant | {' | '.join(seeds)} |")
    print(f"|---|{'---|' * len(seeds)}")
    for mutant in MUTANTS:
        cells = [await broken(mutant, scenario, seed) for scenario, seed in seeds.items()]
        marked = [
            f"**{cell}**" if scenario == mutant.scenario else cell
            for scenario, cell in zip(seeds, cells, strict=True)
        ]
        print(f"| {mutant.name} | {' | '.join(marked)} |")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
