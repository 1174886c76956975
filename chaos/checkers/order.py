"""P3: on a process-specific channel, what one task wrote arrives in the order of its writes.

A write that its caller cancelled has no place in that order: the caller went on without waiting for
its outcome, so it may happen after the next one.
"""

from __future__ import annotations

from chaos.checkers.base import Finding, finding, messages, process_specific
from chaos.history import CANCELLED, History, Operation


def check(history: History) -> Finding:
    writes, specific = messages(history), process_specific(history)
    latest: dict[tuple[str, str], Operation] = {}
    violations = []
    examined = 0
    for delivery in history.deliveries:
        write = writes.get(delivery.message)
        if write is None or delivery.channel not in specific:
            continue
        if write.error == CANCELLED:
            continue
        key = (delivery.channel, write.writer)
        before = latest.get(key)
        if before is not None:
            examined += 1
            if before.number > write.number:
                violations.append(
                    f"{delivery.message} ({write.verb}, {write.outcome}, by way of {write.shard}) "
                    f"came to {delivery.channel} at {delivery.at_s:.3f} after number "
                    f"{before.number} ({before.verb}, {before.outcome}, {before.shard})"
                )
                continue
        latest[key] = write
    return finding("P3", examined, violations)
