"""Servers that tests ask for by name."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from cluster_layer import log_limit
from cluster_layer.embedded import RedisServer, start_shards
from tests.support.zookeeper import ZooKeeperServer

# Integration builds judge the same examples every time; everybody else looks for new ones. How long
# an example takes says nothing on a machine that others use too.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("shared", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="also what is marked as long, and all cases where else each third is taken",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Of many like cases each first, or with --long all."""
    return 1 if request.config.getoption("--long") else 3


@pytest.fixture(autouse=True)
def every_test_sees_its_own_logs() -> None:
    """What another test has logged before does not count as told."""
    log_limit.limit.forget()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A blank server for one test alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def shards() -> Iterator[list[RedisServer]]:
    """Three servers that all tests of one worker share: use a prefix of your own, and no faults."""
    with start_shards(3) as servers:
        yield servers


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperServer]:
    """One server that all tests of one worker share: use a path of your own, and leave it running.

    Tests that stop or pause a server start one of their own.
    """
    with ZooKeeperServer() as server:
        yield server
