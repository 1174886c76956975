"""P8: no call hangs, and no key is without a TTL."""

from __future__ import annotations

from chaos.checkers.base import Finding, ended_early, finding, stood_still_s
from chaos.history import History

#: A call may wait for a connection and then for an answer, twice if it was refused in between; a
#: group_send to members of other processes and a group_add of another's channel write twice.
TIMEOUTS = 4.0
SLACK_S = 1.0  # of a busy machine


def check(history: History) -> Finding:
    """`figures`: the longest call in seconds, and the keys that were left."""
    bound_s = TIMEOUTS * history.header.timeout_s + SLACK_S
    ended = ended_early(history)
    violations = []
    longest_s = 0.0
    for one in history.operations.values():
        ended_s = one.completed_s
        if ended_s is None:
            ended_s = ended.get(one.process, float("inf"))
        took_s = ended_s - one.invoked_s
        if took_s > bound_s:
            took_s -= stood_still_s(history, one.process, one.invoked_s, ended_s)
        if took_s > bound_s:
            took = f"took {took_s:.3f} s" if one.completed_s else "never returned"
            violations.append(
                f"{one.verb} {one.id} by way of {one.shard}, begun at {one.invoked_s:.3f}, {took}; "
                f"{bound_s:g} s are allowed"
            )
        else:
            longest_s = max(longest_s, took_s)
    violations += [
        f"{audit.unbounded} of {audit.keys} keys on {audit.shard} have no TTL"
        for audit in history.audits
        if audit.unbounded
    ]
    figures = {
        "longest call s": round(longest_s, 3),
        "keys left": sum(audit.keys for audit in history.audits),
    }
    return finding("P8", len(history.operations), violations, figures)
