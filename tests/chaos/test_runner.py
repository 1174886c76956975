"""Short runs on real servers and processes; and that broken layers do not get through them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from chaos.checkers import check
from chaos.checkers.base import Finding, Verdict
from chaos.environments.local import WORKER
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import SCENARIOS, SMOKE


async def findings(
    scenario: str, *, seed: int, seconds: float, worker: Sequence[str] = WORKER
) -> dict[str, Finding]:
    """What a run shows, by invariant."""
    what = Run(SCENARIOS[scenario], seed, seconds, processes=2, worker=worker, drain_s=3)
    found = check(history_of(await run(what, print)))
    return {one.invariant: one for one in found}


def told(found: dict[str, Finding]) -> str:
    return "\n".join(
        f"{one.invariant} {one.verdict}: {'; '.join(one.violations)}" for one in found.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SMOKE)
async def test_smoke(scenario: str) -> None:
    """The layer keeps its promises in a short run with one fault."""
    found = await findings(scenario, seed=1, seconds=6)
    assert all(one.verdict is not Verdict.INVALID for one in found.values()), told(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "scenario", "invariant"),
    [
        ("resend", "direct/reply-lost", "P1"),
        ("no-incarnation", "normal/stale-rdb", "P1"),
        ("no-order", "mixed/calm", "P3"),
    ],
)
async def test_a_mutant_is_caught(mutant: str, scenario: str, invariant: str) -> None:
    """A layer with this defect breaks this promise in this scenario."""
    worker = (sys.executable, "-m", "tests.chaos.mutant_worker", mutant)
    found = await findings(scenario, seed=1, seconds=5, worker=worker)
    assert found[invariant].verdict is Verdict.INVALID, told(found)
