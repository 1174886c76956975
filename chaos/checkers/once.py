"""P1: a message is delivered at most once per addressee, a normal channel's to one reader only."""

from __future__ import annotations

from chaos.checkers.base import Finding, finding
from chaos.history import Delivery, History


def check(history: History) -> Finding:
    first: dict[tuple[str, str], Delivery] = {}
    violations = []
    for delivery in history.deliveries:
        earlier = first.setdefault((delivery.message, delivery.channel), delivery)
        if earlier is not delivery:
            violations.append(
                f"{delivery.message} came to {delivery.channel} twice: at {earlier.at_s:.3f} in "
                f"{earlier.process} and at {delivery.at_s:.3f} in {delivery.process}"
            )
    return finding("P1", len(history.deliveries), violations)
