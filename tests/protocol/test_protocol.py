"""Every interleaving of a small cluster in the middle of a change (docs/decisions/0006).

Two shards, a slot that moves from one to the other, two processes, a few messages, and a
coordinator: each may be late, learn the topology from the store or from a shard, and be stopped
between any two steps. What holds is shown by walking all of it; that the walk would notice is shown
by breaking one rule at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from tests.protocol.control import Faults, Rules
from tests.protocol.direct import Direct
from tests.protocol.explorer import Explored, explore
from tests.protocol.groups import Groups
from tests.protocol.members import Members
from tests.protocol.queues import Queues


class Model(Protocol):
    @property
    def start(self) -> Any: ...
    def steps(self, state: Any) -> Iterator[tuple[str, Any]]: ...
    def violation(self, state: Any) -> str | None: ...
    def violation_at_end(self, state: Any) -> str | None: ...


Make = Callable[[Rules, Faults], Model]


def direct(messages: int, deaths: int = 0) -> Make:
    return lambda rules, faults: Direct(rules, faults, messages=messages, deaths=deaths)


def groups(messages: int) -> Make:
    return lambda rules, faults: Groups(rules, faults, messages=messages)


def members(*changes: bool, sends: int = 1) -> Make:
    return lambda rules, faults: Members(rules, faults, changes=changes, sends=sends)


def queues(messages: int, *, reads: bool = True) -> Make:
    return lambda rules, faults: Queues(rules, faults, messages=messages, reads=reads)


def explored(make: Make, rules: Rules, faults: Faults, *, ends: bool = True) -> Explored[Any]:
    model = make(rules, faults)
    at_end = model.violation_at_end if ends else lambda _: None
    result = explore(model.start, model.steps, model.violation, at_end)
    print(f"{result.states:,} states, {result.ends:,} ends")
    return result


HOLDS: list[tuple[str, Make, Faults]] = [
    ("direct", direct(3), Faults()),
    ("direct, receiver dies", direct(2, deaths=1), Faults(coordinator_crashes=1)),
    ("direct, aborts", direct(2), Faults(aborts=1, coordinator_crashes=1)),
    ("direct, lost replies", direct(3), Faults(lost_replies=1)),
    ("direct, a shard crashes", direct(2), Faults(shard_crashes=1)),
    ("direct, a shard is marked as down", direct(2), Faults(rehomes=1)),
    ("group", groups(2), Faults()),
    ("group, aborts", groups(1), Faults(aborts=1)),
    ("group, a shard crashes", groups(1), Faults(shard_crashes=1)),
    ("members", members(True, False, sends=2), Faults()),
    ("members, aborts", members(True, False), Faults(aborts=1)),
    ("members, two coordinators", members(True, False), Faults(coordinator_crashes=1)),
    ("members, a shard is marked as down", members(True, False), Faults(rehomes=1)),
    ("queue", queues(3), Faults()),
    ("queue, aborts", queues(2), Faults(aborts=1)),
    ("queue, nobody reads", queues(2, reads=False), Faults(aborts=1)),
    ("queue, a shard crashes", queues(1), Faults(shard_crashes=1, aborts=1)),
    ("queue, a shard is marked as down", queues(2), Faults(rehomes=1)),
]


@pytest.mark.parametrize(("make", "faults"), [c[1:] for c in HOLDS], ids=[c[0] for c in HOLDS])
def test_nothing_comes_twice_or_late_and_no_change_loses_anything(
    make: Make, faults: Faults
) -> None:
    """Whatever happens in whatever order; only what a shard took with it may be lost."""
    result = explored(make, Rules(), faults)
    assert result.violation is None, result.told()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "faults"),
    [
        pytest.param(direct(3), Faults(aborts=1, lost_replies=1), id="direct"),
        pytest.param(groups(3), Faults(), id="three messages"),
        pytest.param(groups(2), Faults(aborts=1), id="group"),
        pytest.param(groups(1), Faults(aborts=1, coordinator_crashes=1), id="group, killed"),
        pytest.param(groups(1), Faults(rehomes=1), id="group, down"),
        pytest.param(members(True, False), Faults(aborts=1, coordinator_crashes=1), id="members"),
        pytest.param(members(True, False), Faults(aborts=1, rehomes=1), id="members, down"),
        pytest.param(queues(3), Faults(aborts=1), id="queue"),
    ],
)
def test_the_same_with_more_of_everything(make: Make, faults: Faults) -> None:
    """Larger worlds hold the same promises."""
    result = explored(make, Rules(), faults)
    assert result.violation is None, result.told()


#: A rule, what is lost without it, and where.
BROKEN: list[tuple[str, object, Make, Faults, str]] = [
    ("fence", False, direct(2), Faults(), "lost"),
    ("fence", False, groups(2), Faults(), "lost"),
    ("fence", False, members(True), Faults(), "not served although it was stored"),
    ("fence", False, queues(2), Faults(), "lost"),
    ("commit_waits", False, groups(2), Faults(), "lost"),
    ("finish_waits", False, direct(2), Faults(), "lost"),
    ("finish_waits", False, groups(2), Faults(), "lost"),
    ("drain", False, direct(2), Faults(), "lost"),
    ("drain", False, groups(2), Faults(), "lost"),
    ("drain", False, queues(2), Faults(), "lost"),
    ("two_homes", False, groups(2), Faults(), "lost"),
    ("two_homes", False, members(True), Faults(), "not served although it was stored"),
    ("marks", False, direct(2), Faults(), "out of order"),
    ("marks", False, groups(2), Faults(), "out of order"),
    ("whole_trail", False, groups(3), Faults(), "out of order"),
    ("clean", False, members(True), Faults(), "served after it left"),
    ("clean_for_rehoming", False, members(True, False), Faults(rehomes=1), "served after it left"),
    ("copy_keeps", False, members(True), Faults(), "not served although it was stored"),
    ("tombstones", False, members(True, False), Faults(), "served after it left"),
    (
        "fenced_helpers",
        False,
        members(True),
        Faults(coordinator_crashes=1),
        "not served although it was stored",
    ),
    ("fenced_helpers", False, queues(2), Faults(aborts=1), "delivered twice"),
    (
        "writers_bring",
        False,
        members(True, False),
        Faults(coordinator_crashes=1),
        "served after it left",
    ),
    ("receipts", False, queues(2), Faults(), "delivered twice"),
    ("same_life", False, queues(2), Faults(shard_crashes=1), "delivered twice"),
    ("move_by_copy", True, queues(2), Faults(), "delivered twice"),
]


@pytest.mark.parametrize(("rule", "value", "make", "faults", "violation"), BROKEN)
def test_a_broken_rule_is_found(
    rule: str, value: object, make: Make, faults: Faults, violation: str
) -> None:
    """Each rule is there for a reason, which the shortest way to the harm tells."""
    result = explored(make, Rules(**{rule: value}), faults)  # type: ignore[arg-type]
    assert result.violation is not None
    print(result.told())
    assert result.violation.startswith(violation)


@pytest.mark.parametrize("make", [direct(3), groups(2), queues(3)])
def test_going_on_without_a_process_harms_it_alone(make: Make) -> None:
    """Who does not wait for a receiver may lose its messages, but duplicates and mixes up none."""
    rules = Rules(commit_waits=False, finish_waits=False)
    result = explored(make, rules, Faults(), ends=False)
    assert result.violation is None, result.told()


def test_a_walk_covers_all_and_tells_the_shortest_way() -> None:
    """The explorer itself, on a world whose states can be counted by hand."""

    def steps(state: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int]]]:
        left, right = state
        if left < 3:
            yield "left", (left + 1, right)
        if right < 3:
            yield "right", (left, right + 1)

    def never(_: object) -> None:
        return None

    whole = explore((0, 0), steps, never, never)
    assert (whole.states, whole.ends, whole.violation) == (16, 1, None)
    found = explore((0, 0), steps, lambda state: "both" if min(state) else None, never)
    assert (found.violation, sorted(found.trace)) == ("both", ["left", "right"])
    at_end = explore((0, 0), steps, never, lambda _: "the end")
    assert (at_end.violation, len(at_end.trace)) == ("the end", 6)
