"""P6: what a fault broke works again soon after its end, and receive() outlives every outage."""

from __future__ import annotations

from chaos.checkers.base import HEAL_S, Finding, finding, host_of, messages
from chaos.history import WRITES, Delivery, History, Operation, Outcome, Verb, Window


def check(history: History) -> Finding:
    """`figures`: the longest healing time per fault, in seconds.

    Each fault, each shard it struck and each verb by itself: healed is when a write that was begun
    after the fault's end has been delivered.
    """
    arrivals = _first_arrivals(history)
    figures: dict[str, float] = {}
    violations = [
        f"{failure.where} of {failure.process} raised {failure.error} at {failure.at_s:.3f}"
        for failure in history.failures
        if "receive" in failure.where or "read" in failure.where
    ]
    examined = 0
    for window in history.windows:
        for verb in WRITES:
            for shard, attempts in _attempts(history, window, verb).items():
                examined += 1
                healed_s = _healed_s(attempts, arrivals, window)
                if healed_s is None or healed_s > HEAL_S:
                    violations.append(_told(window, shard, verb, healed_s, len(attempts)))
                else:
                    key = f"heal s: {window.fault}"
                    figures[key] = max(figures.get(key, 0.0), round(healed_s, 3))
    return finding("P6", examined, violations, figures)


def _first_arrivals(history: History) -> dict[str, float]:
    first: dict[str, float] = {}
    for delivery in history.deliveries:
        first.setdefault(delivery.message, _time_of(delivery))
    return first


def _time_of(delivery: Delivery) -> float:
    return delivery.at_s


def _attempts(history: History, window: Window, verb: Verb) -> dict[str, dict[str, Operation]]:
    """Shard -> message -> write, of those who were struck, while nothing else struck them.

    Shards with too few attempts to tell are left out.
    """
    found: dict[str, dict[str, Operation]] = {}
    for message, write in messages(history).items():
        struck = not window.shards or write.shard in window.shards
        ours = not window.processes or host_of(write.process) in window.processes
        in_time = window.ended_s <= write.invoked_s <= window.ended_s + HEAL_S
        if write.verb is verb and struck and ours and in_time:
            found.setdefault(write.shard, {})[message] = write
    return {
        shard: attempts
        for shard, attempts in found.items()
        if _spread_s(attempts) > HEAL_S / 2 and not _struck_again(history, window, shard)
    }


def _spread_s(attempts: dict[str, Operation]) -> float:
    times = [write.invoked_s for write in attempts.values()]
    return max(times) - min(times)


def _struck_again(history: History, window: Window, shard: str) -> bool:
    return any(
        other is not window
        and (not other.shards or shard in other.shards)
        and other.began_s < window.ended_s + HEAL_S
        and other.ended_s > window.ended_s
        for other in history.windows
    )


def _healed_s(
    attempts: dict[str, Operation], arrivals: dict[str, float], window: Window
) -> float | None:
    healed = [
        arrivals[message]
        for message, write in attempts.items()
        if write.outcome is Outcome.OK and message in arrivals
    ]
    return min(healed) - window.ended_s if healed else None


def _told(window: Window, shard: str, verb: Verb, healed_s: float | None, attempts: int) -> str:
    found = "nothing arrived" if healed_s is None else f"the first arrived {healed_s:.3f} s later"
    return (
        f"{window.fault} ended at {window.ended_s:.3f}: of {attempts} {verb} by way of {shard} in "
        f"the {HEAL_S:g} s after it {found}"
    )
