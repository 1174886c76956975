"""Resilience mode: a share of the messages is dropped, counted, and announced loudly."""

import asyncio
import logging
import random
from collections import Counter

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.buffers import Audience, Loss, Parcel
from cluster_layer.config import Config
from cluster_layer.embedded import RedisServer
from cluster_layer.lossy import LossyMailboxes, mailboxes_of
from tests.support.layers import numbered, open_layer
from tests.support.waiting import eventually_async

LATER = 1e9


def test_each_channel_loses_its_own_share() -> None:
    """Direct messages and those of groups; not all members miss the same."""
    lost: Counter[Loss] = Counter()
    boxes = LossyMailboxes(
        lambda _: 100_000, lambda why, n: lost.update({why: n}), 0.25, random.Random(3).random
    )
    members = [boxes.open(f"c{number}") for number in range(10)]
    for _ in range(2000):
        boxes.put_all(Audience(tuple(members)), Parcel(b"", b"", LATER))
        boxes.put(members[0], Parcel(b"", b"", LATER))
    kept = [len(box.parcels) for box in members]
    assert sum(kept) + lost[Loss.DROPPED] == 22_000
    assert set(lost) == {Loss.DROPPED}
    for count in kept[1:]:
        assert 1400 < count < 1600
    assert len(set(kept)) > 3


def test_without_a_rate_nothing_is_in_the_way() -> None:
    """The plain mailboxes: no cost and no chance."""
    boxes = mailboxes_of(Config.from_dict({}), lambda _why, _count: None)
    assert not isinstance(boxes, LossyMailboxes)


def test_it_is_announced_at_construction(caplog: pytest.LogCaptureFixture) -> None:
    """As CRITICAL, with the share and the remedy; and not at all when it is off."""
    with caplog.at_level(logging.DEBUG, "cluster_layer"):
        ClusterChannelLayer()
        assert not caplog.records
        ClusterChannelLayer(drop_rate=0.05)
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "drop_rate is 0.05" in record.message
    assert "5 % OF ALL MESSAGES" in record.message


async def test_a_layer_drops_what_it_says(shards: list[RedisServer]) -> None:
    """Of every kind of message; the rest arrives in order, and stats() adds up."""
    async with open_layer(shards, drop_rate=0.5, capacity=1000) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        for number in range(200):
            await layer.send(channel, numbered(number))
            await layer.group_send("group", numbered(number))
            await layer.send("orders", numbered(number))
        arrived: dict[str, list[int]] = {channel: [], "orders": []}

        async def read(name: str) -> None:
            while True:
                arrived[name].append((await layer.receive(name))["n"])

        readers = [asyncio.create_task(read(name)) for name in arrived]

        def all_accounted_for() -> bool:
            dropped: int = layer.stats()["lost"].get("dropped", 0)
            return dropped + sum(map(len, arrived.values())) == 600

        await eventually_async(all_accounted_for)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for numbers in arrived.values():
            assert numbers == sorted(numbers)
        assert 200 < layer.stats()["lost"]["dropped"] < 400
        assert set(layer.stats()["lost"]) == {"dropped"}
