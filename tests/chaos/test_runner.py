"""Short runs on real servers and processes; and that broken layers do not get through them."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checkers import check
from chaos.checkers.base import Finding, Verdict
from chaos.history import history_of
from chaos.runner import Run, run
from chaos.scenarios import CHANGING, SCENARIOS, SMOKE
from tests.chaos.mutants import MUTANTS, Mutant, operator, worker


async def findings(
    scenario: str, *, seed: int, seconds: float, drain_s: float = 3.0, **more: Any
) -> dict[str, Finding]:
    """What a run shows, by invariant."""
    what = Run(SCENARIOS[scenario], seed, seconds, processes=2, drain_s=drain_s, **more)
    found = check(history_of(await run(what, print)))
    return {one.invariant: one for one in found}


def told(found: dict[str, Finding]) -> str:
    return "\n".join(
        f"{one.invariant} {one.verdict}: {'; '.join(one.violations)}" for one in found.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [s for s in SMOKE if not SCENARIOS[s].zookeeper_servers])
async def test_smoke(scenario: str) -> None:
    """The layer keeps its promises in a short run with one fault."""
    # A change takes its time, and so do monitors.
    seconds = 12 if SCENARIOS[scenario].rhythm is CHANGING else 5
    found = await findings(scenario, seed=1, seconds=seconds, drain_s=2)
    assert all(one.verdict is not Verdict.INVALID for one in found.values()), told(found)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_a_mutant_is_caught(mutant: Mutant) -> None:
    """A layer with this defect breaks this promise in this scenario."""
    found = await findings(
        mutant.scenario,
        seed=mutant.seed,
        seconds=mutant.seconds,
        drain_s=mutant.drain_s,
        worker=mutant.worker,
        operator=mutant.operator,
    )
    assert found[mutant.invariant].verdict is Verdict.INVALID, told(found)


def test_every_mutant_has_a_scenario() -> None:
    """And each of them can be installed."""
    assert {mutant.name for mutant in MUTANTS} == worker.INSTALL.keys() | operator.INSTALL.keys()
    assert {mutant.scenario for mutant in MUTANTS} <= SCENARIOS.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "scenario", "invariant"),
    [
        ("channels_redis-core", "direct/calm", "P4"),
        ("channels_redis-pubsub", "normal/calm", "P1"),
    ],
)
async def test_another_layer_runs_through_the_same(
    layer: str, scenario: str, invariant: str
) -> None:
    """What it breaks without any fault."""
    found = await findings(scenario, seed=1, seconds=3, drain_s=1.5, layer=layer)
    assert found[invariant].verdict is Verdict.INVALID, told(found)
