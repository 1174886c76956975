"""P2: only what was sent, only to whom it was addressed, nothing that failed definitely."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.checkers.base import Finding, Membership, finding, memberships, messages
from chaos.history import Delivery, History, Operation, Outcome, Verb

Members = Mapping[str, Mapping[str, Membership]]


def check(history: History) -> Finding:
    writes, members = messages(history), memberships(history)
    violations = []
    for delivery in history.deliveries:
        fault = _fault(delivery, writes.get(delivery.message), members)
        if fault:
            violations.append(
                f"{delivery.message} came to {delivery.channel} at {delivery.at_s:.3f}: {fault}"
            )
    return finding("P2", len(history.deliveries), violations)


def _fault(delivery: Delivery, write: Operation | None, members: Members) -> str:
    if write is None:
        return "nobody sent it"
    if write.outcome is Outcome.NO:
        return f"its send had failed definitely at {write.settled_s:.3f} ({write.error})"
    if delivery.at_s < write.invoked_s:
        return f"that is before it was sent, at {write.invoked_s:.3f}"
    if write.verb is Verb.SEND:
        return "" if write.name == delivery.channel else f"it was sent to {write.name}"
    membership = members.get(write.name, {}).get(delivery.channel)
    if membership is None:
        return f"which nobody ever added to {write.name}"
    if membership.forbids(write.invoked_s):
        return f"it had left {write.name} before the send at {write.invoked_s:.3f}"
    return ""
