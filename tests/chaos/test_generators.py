"""Schedules of faults."""

from __future__ import annotations

from random import Random

from chaos.generators import Rhythm, Strike, schedule

FAULTS = ("a", "b", "c")


def strikes(seed: int, seconds: float = 60.0) -> tuple[Strike, ...]:
    return schedule(FAULTS, Random(seed), seconds=seconds, shards=3, processes=2, rhythm=Rhythm())


def test_the_same_seed_gives_the_same_schedule() -> None:
    """And another seed another one."""
    assert strikes(1) == strikes(1) != strikes(2)


def test_a_schedule_keeps_to_its_bounds() -> None:
    """In order, within the time, at shards and processes that there are."""
    for seed in range(50):
        found = strikes(seed)
        assert [one.at_s for one in found] == sorted(one.at_s for one in found)
        assert all(one.at_s + one.duration_s <= 60.0 - Rhythm().quiet_s for one in found)
        assert all(one.shard < 3 and one.process < 2 for one in found)


def test_every_fault_strikes_before_any_strikes_again() -> None:
    """As far as there is time."""
    for seed in range(50):
        assert {one.fault for one in strikes(seed)[:3]} == set(FAULTS)


def test_however_short_a_run_is_one_fault_strikes() -> None:
    """A run with faults but none in it would prove nothing."""
    assert len(strikes(1, seconds=1.0)) == 1


def test_without_faults_nothing_strikes() -> None:
    """A calm run."""
    assert schedule((), Random(1), seconds=60, shards=1, processes=1, rhythm=Rhythm()) == ()
