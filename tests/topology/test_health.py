"""Which shards are judged lost, and which may come back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER
from topology import transitions
from topology.errors import TopologyInvalid
from topology.health import Detector, Judgement, Limits, View
from topology.model import Shard, Topology
from topology.planning import initial_topology

LIMITS = Limits(down_after_s=1, gap_s=2, fresh_s=3, quiet_s=10, max_down_share=1 / 3)
TICK_S = 0.5


def cluster(count: int) -> Topology:
    shards = [Shard(f"s{i}", f"redis://s{i}") for i in range(count)]
    return initial_topology(shards, cluster=CLUSTER)


class Watch:
    """A detector that looks at all shards once per tick."""

    def __init__(self, shards: int = 3, limits: Limits = LIMITS) -> None:
        self.topology = cluster(shards)
        self.detector = Detector("m1", limits)
        self.now = 100.0

    def look(self, *failing: str, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.now += TICK_S
            for shard in self.topology.shards:
                self.detector.observe(
                    shard.id,
                    reachable=shard.id not in failing,
                    began=self.now,
                    now=self.now,
                    reason="refused" if shard.id in failing else "",
                )

    def judged(self, *views: View) -> Judgement:
        return self.detector.judge(self.topology, views, self.now)

    def down(self, *views: View) -> list[str]:
        return [evidence.shard for evidence in self.judged(*views).down]


def view(observer: str, *unreachable: str, age_s: float = 0.5) -> View:
    return View(observer, age_s, frozenset(unreachable))


def test_a_shard_that_nobody_reaches_is_lost_after_a_while() -> None:
    """Not at the first failure, and at once when the time is over."""
    watch = Watch()
    watch.look()
    watch.look("s1")
    assert not watch.down(view("p1", "s1"))
    watch.look("s1")
    assert not watch.down(view("p1", "s1"))
    watch.look("s1")
    judged = watch.judged(view("p1", "s1"))
    assert [evidence.shard for evidence in judged.down] == ["s1"]
    assert not judged.suspected
    assert str(judged.down[0]) == (
        "s1: out of reach for 1.0 s (refused); 2 of 2 observers cannot reach it"
    )


@pytest.mark.parametrize(
    ("views", "lost"),
    [
        ([], True),
        ([view("p1")], False),
        ([view("p1", "s1")], True),
        ([view("p1", "s1"), view("p2")], True),
        ([view("p1", "s1"), view("p2"), view("p3")], False),
        ([view("p1", "s1"), view("p2", age_s=4), view("p3", age_s=4)], True),
        ([view("p1", "s1", age_s=4), view("p2")], False),
        ([view("p1", "s2"), view("p2", "s1")], True),
    ],
)
def test_a_majority_of_fresh_observers_must_agree(views: list[View], lost: bool) -> None:
    """The judging observer counts too; stale views do not."""
    watch = Watch()
    watch.look("s1", ticks=5)
    assert (watch.down(*views) == ["s1"]) is lost
    assert len(watch.judged(*views).suspected) == (not lost)


def test_who_judges_must_not_reach_it_either() -> None:
    """However many others cannot reach a shard: one that answers the judge is not marked."""
    watch = Watch()
    watch.look(ticks=5)
    assert not watch.down(view("p1", "s1"), view("p2", "s1"), view("p3", "s1"))


def test_one_answer_begins_it_all_anew() -> None:
    """Only an unbroken row of failures counts."""
    watch = Watch()
    watch.look("s1", ticks=3)
    watch.look()
    watch.look("s1", ticks=2)
    assert not watch.down()
    watch.look("s1")
    assert watch.down() == ["s1"]


def test_a_judge_that_slept_knows_nothing() -> None:
    """After a gap neither the time before nor an old observation counts."""
    watch = Watch()
    watch.look("s1", ticks=3)
    watch.now += 60
    assert watch.judged() == Judgement()
    watch.look("s1")
    assert not watch.down()
    watch.look("s1", ticks=2)
    assert watch.down() == ["s1"]


def test_a_slow_failure_counts_from_its_beginning() -> None:
    """An attempt that took long to fail has been failing all that time."""
    watch = Watch()
    watch.detector.observe("s1", reachable=False, began=99.0, now=100.0, reason="silent")
    assert watch.down() == ["s1"]


@pytest.mark.parametrize(
    ("shards", "allowed"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (10, 3)]
)
def test_no_more_than_a_share_is_ever_marked(shards: int, allowed: int) -> None:
    """At least one, never the last; of more at once none is marked, and the reason is given."""
    for failing in range(1, shards + 1):
        watch = Watch(shards)
        watch.look(*(f"s{i}" for i in range(failing)), ticks=5)
        judged = watch.judged()
        assert len(judged.down) == (failing if failing <= allowed else 0)
        assert (judged.withheld is None) is (failing <= allowed)
        assert len(judged.suspected) == (0 if failing <= allowed else failing)


def test_those_that_are_down_already_count() -> None:
    """One shard after the other is no way around the limit."""
    watch = Watch(3)
    watch.look("s1", ticks=5)
    watch.topology = transitions.rehome(watch.topology, watch.down(), "a test")
    watch.look("s1", "s2", ticks=5)
    judged = watch.judged()
    assert not judged.down
    assert judged.withheld == (
        "2 of 3 shards would be down, and at most 1 may be: look whether this host is cut off"
    )


def test_one_that_has_just_begun_to_fail_counts_against_the_limit() -> None:
    """When everything fails, nothing is marked because some of it failed a moment earlier."""
    watch = Watch(3)
    watch.look("s1", ticks=3)
    watch.look("s1", "s2")
    assert not watch.down()


def test_a_shard_comes_back_after_a_quiet_time() -> None:
    """Every failure begins the quiet time anew."""
    watch = Watch()
    watch.topology = transitions.rehome(watch.topology, ["s1"], "a test")
    watch.look("s1", ticks=3)
    watch.look(ticks=20)
    assert not watch.judged().back
    watch.look("s1")
    watch.look(ticks=20)
    assert not watch.judged().back
    watch.look()
    assert [evidence.shard for evidence in watch.judged().back] == ["s1"]


def test_what_is_told_to_others_is_what_failed_last() -> None:
    """And nothing of shards that are no more."""
    watch = Watch()
    watch.look("s1", "s2")
    watch.look("s2")
    assert watch.detector.unreachable() == {"s2"}
    watch.detector.forget(["s2"])
    assert watch.detector.unreachable() == frozenset()


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sets(st.integers(0, 11)), st.integers(1, 4)), max_size=8),
    st.lists(st.sets(st.integers(0, 11)), max_size=5),
)
def test_whatever_is_seen_a_part_of_the_shards_stays(
    shards: int, seen: list[tuple[set[int], int]], others: list[set[int]]
) -> None:
    """Marking whatever is judged lost never passes the limit, and never takes the last shard."""
    watch = Watch(shards)
    views = [view(f"p{i}", *(f"s{n}" for n in names)) for i, names in enumerate(others)]
    marked: set[str] = set()
    for failing, ticks in seen:
        watch.look(*(f"s{i}" for i in failing), ticks=ticks)
        down = watch.down(*views)
        if down:
            watch.topology = transitions.rehome(watch.topology, down, "a test")
            marked |= set(down)
    assert len(marked) <= min(LIMITS.max_down(shards), shards - 1)


@pytest.mark.parametrize(
    "wrong",
    [{"down_after_s": 0}, {"quiet_s": -1}, {"fresh_s": float("nan")}, {"max_down_share": 1}],
)
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    """The error names the limit and what is allowed."""
    with pytest.raises(TopologyInvalid, match=next(iter(wrong))):
        replace(LIMITS, **wrong)
