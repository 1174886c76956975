"""A reader that makes no progress is noticed and begins anew; one that is merely idle is not."""

import asyncio
import logging

import pytest

from cluster_layer.embedded import RedisServer
from cluster_layer.inbox import InboxReader
from cluster_layer.watchdog import PATIENCE, Watchdog
from tests.support.layers import numbered, open_layer, receive
from tests.support.waiting import eventually_async


class Reader:
    """What the watchdog sees of one."""

    def __init__(self) -> None:
        self.progress: int = 0
        self.idle: bool = False
        self.begun_anew: int = 0

    def begin_anew(self) -> None:
        self.begun_anew += 1

    def __str__(self) -> str:
        return "a reader"


def test_patience_ends_without_progress_only(caplog: pytest.LogCaptureFixture) -> None:
    """Progress, or nothing to read, begins the count anew."""
    dog, reader = Watchdog(), Reader()
    for look in range(10 * PATIENCE):
        reader.progress += look % (PATIENCE - 1) == 0
        dog.look([reader])  # type: ignore[list-item]
    reader.idle = True
    for _ in range(3 * PATIENCE):
        dog.look([reader])  # type: ignore[list-item]
    assert (reader.begun_anew, dog.stalled) == (0, ())
    reader.idle = False
    for _ in range(PATIENCE):
        dog.look([reader])  # type: ignore[list-item]
    assert (reader.begun_anew, dog.stalled) == (1, ("a reader",))
    assert "a reader makes no progress" in caplog.text
    reader.progress += 1
    dog.look([reader])  # type: ignore[list-item]
    assert (reader.begun_anew, dog.stalled) == (1, ())


async def test_a_reader_that_hangs_is_brought_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect makes the reading of the inbox wait for ever; seconds later messages flow again."""
    hangs = True

    async def never(self: InboxReader, *args: object) -> None:
        while hangs:
            await asyncio.sleep(3600)

    async with open_layer([redis_server]) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, numbered(1))
        assert await receive(layer, channel) == numbered(1)
        node = layer._hosts.node
        assert node is not None
        node._watchdog = Watchdog(patience=2)
        reading = InboxReader._read
        monkeypatch.setattr(InboxReader, "_read", never)
        (reader,) = node._readers.inboxes.values()
        assert reader._connection is not None
        reader._connection.close("a test")
        await eventually_async(lambda: layer.stats()["stalled"])
        assert not (await layer.health(timeout=1)).ok
        monkeypatch.setattr(InboxReader, "_read", reading)
        await layer.send(channel, numbered(2))
        assert await receive(layer, channel) == numbered(2)
        await eventually_async(lambda: not layer.stats()["stalled"])
    assert "InboxReader of shard" in caplog.text
    assert logging.ERROR in {record.levelno for record in caplog.records}
