"""P10: a wrong clock on a host changes nothing."""

import asyncio

import pytest

from cluster_layer.embedded import RedisServer
from tests.support.layers import (
    numbered,
    numbers_before_end,
    open_layer,
    receive,
    shared_config,
)
from tests.support.workers import Worker

HOUR_S = 3600.0


@pytest.mark.parametrize("skew_s", [-HOUR_S, HOUR_S])
async def test_a_writer_with_a_wrong_clock_is_heard(
    shards: list[RedisServer], skew_s: float
) -> None:
    """Messages are neither expired at once nor kept for an hour, in all three ways."""
    config = shared_config(shards, expiry=1.5)
    async with open_layer(**config) as layer, Worker(config, clock_skew_s=skew_s) as wrong:
        channel = await layer.new_channel()
        await wrong.call("layer", "group_add", "group", channel)
        await wrong.call("layer", "send", channel, numbered(1))
        assert await receive(layer, channel) == numbered(1)
        await wrong.call("layer", "group_send", "group", numbered(2))
        assert await receive(layer, channel) == numbered(2)
        await wrong.call("layer", "send", "orders", numbered(3))
        assert await receive(layer, "orders") == numbered(3)
        for name in (channel, "orders"):
            await wrong.call("layer", "send", name, numbered(4))
        await asyncio.sleep(1.8)
        for name in (channel, "orders"):
            await wrong.call("layer", "send", name, numbered(5, end=True))
            assert await numbers_before_end(layer, name) == []


@pytest.mark.parametrize("skew_s", [-HOUR_S, HOUR_S])
async def test_a_reader_with_a_wrong_clock_hears(shards: list[RedisServer], skew_s: float) -> None:
    """Its memberships last and its messages arrive, none of them too old or too young."""
    config = shared_config(shards, expiry=1.5)
    async with open_layer(**config) as layer, Worker(config, clock_skew_s=skew_s) as wrong:
        member = await wrong.call("join", "group")
        await layer.group_send("group", numbered(1))
        assert await wrong.call("receive", member) == numbered(1)
        await layer.send(member, numbered(2))
        assert await wrong.call("receive", member) == numbered(2)
        await layer.send("orders", numbered(3))
        assert await wrong.call("receive", "orders") == numbered(3)
        await layer.send("orders", numbered(4))
        await asyncio.sleep(1.8)
        await layer.send("orders", numbered(5))
        assert await wrong.call("receive", "orders") == numbered(5)
