"""Logs: each condition once, then a count; never a flood."""

import logging
from collections.abc import Iterator

import pytest

from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters
from cluster_layer.log_limit import MAX_ALIKE, WINDOW_S, FloodFilter
from cluster_layer.losses import TELL_EVERY_S, LossLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> FloodFilter:
    return FloodFilter(clock)


@pytest.fixture
def logger(limit: FloodFilter) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log_limit")
    logger.addFilter(limit)
    yield logger
    logger.removeFilter(limit)


def test_a_condition_is_told_once_and_then_counted(
    logger: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand times within a minute are one line; the next one says how many there were."""
    for number in range(1000):
        logger.warning("shard %s: lost (%d)", "a", number)
    logger.warning("shard %s: lost (%d)", "b", 0)
    assert caplog.messages == ["shard a: lost (0)", "shard b: lost (0)"]
    clock.now += WINDOW_S
    logger.warning("shard %s: lost (%d)", "a", 1000)
    assert caplog.messages[2:] == ["shard a: lost (1000) (999 more since the last time)"]
    assert caplog.records[2].__dict__["repeated"] == 999
    assert caplog.records[0].__dict__["condition"] == "shard %s: lost (%d)"


def test_what_does_not_happen_again_is_summed_up(
    logger: logging.Logger,
    limit: FloodFilter,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The count is told once its minute is over, and then no more."""
    for _ in range(5):
        logger.error("stuck")
    limit.tell_due(logger)
    assert len(caplog.messages) == 1
    clock.now += WINDOW_S
    limit.tell_due(logger)
    limit.tell_due(logger)
    assert caplog.messages[1:] == ["4 more in 60 s: stuck [any]"]
    assert caplog.records[1].levelno == logging.ERROR


def test_a_flood_of_different_subjects_is_limited(
    logger: logging.Logger,
    limit: FloodFilter,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ten thousand channels with the same trouble are not ten thousand lines."""
    for number in range(10_000):
        logger.warning("member %s was not reached", f"channel{number}")
    assert len(caplog.messages) == MAX_ALIKE
    clock.now += WINDOW_S
    limit.tell_due(logger)
    assert f"{10_000 - MAX_ALIKE} more in 60 s" in caplog.messages[-1]


def test_losses_are_told_by_reason_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    """At once, then at most once a minute; nothing is left out of the sums."""
    counters = Counters()
    log = LossLog(counters)
    with caplog.at_level(logging.INFO, "cluster_layer"):
        log.look(0.0)
        counters.lose(Loss.FULL, 3)
        counters.lose(Loss.EXPIRED)
        log.look(1.0)
        counters.lose(Loss.FULL, 40)
        for second in range(2, 60):
            log.look(float(second))
        log.look(1.0 + TELL_EVERY_S)
        log.look(2.0 + 2 * TELL_EVERY_S)
    assert caplog.messages == [
        "lost as full: 3 messages",
        "lost as expired: 1 messages",
        "lost as full: 40 messages",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
