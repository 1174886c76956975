"""What is right and wrong with a deployment: facts -> findings, each with its remedy.

Every rule says something also when all is well, so that whoever reads the findings knows what was
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster_layer.diagnosis import agreement, shards, store
from cluster_layer.diagnosis.findings import Facts, Finding, Severity
from cluster_layer.overview import StoreView

__all__ = ["Facts", "Finding", "Severity", "diagnose", "diagnose_store", "worst"]


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """All findings, the worst first; within a severity in the order of the rules."""
    rules = (*shards.RULES, *agreement.RULES)
    found = [finding for rule in rules for finding in rule(facts)]
    return _ordered((*diagnose_store(facts.overview.store), *found))


def diagnose_store(view: StoreView) -> tuple[Finding, ...]:
    """What can be found when there is no topology."""
    return _ordered(finding for rule in store.RULES for finding in rule(view))


def worst(findings: Iterable[Finding]) -> Severity:
    """How bad it is altogether; OK if there is nothing."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: -finding.severity))
