"""On a terminal: questions, live progress, and decisions while a change is held up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_layer.embedded import RedisServer, start_shards
from tests.support.command_line import CommandLine
from tests.support.layers import unique_prefix
from tests.support.stored import stored
from tests.support.terminal import terminal
from tests.support.workers import member

#: Many processes, one after the other.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    with start_shards(3) as started:
        yield started


@pytest.fixture
async def store(tmp_path: Path, servers: list[RedisServer]) -> str:
    """With a topology of the first two shards."""
    url = (tmp_path / "topology.json").as_uri()
    named = [f"{name}={server.url}" for name, server in zip("ab", servers[:2], strict=True)]
    await CommandLine(url).run("init", *named)
    return url


async def test_nothing_happens_without_consent(store: str, servers: list[RedisServer]) -> None:
    """No is the default, and Ctrl-C at the question is one, too."""
    before = stored(store)
    add = ("shard", "add", f"c={servers[2].url}")
    async with terminal(store, *add) as screen:
        await screen.shows("Execute this plan?")
        screen.type("\n")
        assert await screen.ended() == 1
    async with terminal(store, *add) as screen:
        await screen.shows("Execute this plan?")
        screen.process.send_signal(signal.SIGINT)
        assert await screen.ended() != 0
    assert stored(store) == before


async def test_progress_is_shown_and_the_operator_decides(
    store: str, servers: list[RedisServer]
) -> None:
    """A stopped process is named; a letter pauses, or goes on without it."""
    async with member({"topology": store, "prefix": unique_prefix()}) as worker:
        async with terminal(
            store, "shard", "add", f"c={servers[2].url}", "--step", "100"
        ) as screen:
            await screen.shows("Execute this plan?")
            worker.stop()
            screen.type("y\n")
            await screen.shows(f"pid {worker.pid}")
            await screen.shows("w go on without")
            screen.type("p\n")
            assert await screen.ended() == 4
            assert "resume" in screen.shown
        async with terminal(store, "resume") as screen:
            await screen.shows(f"pid {worker.pid}")
            screen.type("w\n")
            await screen.shows("finished, at epoch")
            assert await screen.ended() == 0
        assert stored(store).table.counts()["c"] > 1000
