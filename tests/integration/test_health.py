"""health(): a message through every shard, and what the Django view makes of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from channels.layers import channel_layers
from django.conf import settings
from django.test import AsyncRequestFactory

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer, start_shards
from cluster_layer.views import health
from tests.support.layers import numbered, only_end_comes, open_layer, shared_config


@pytest.fixture
def two_shards() -> Iterator[list[RedisServer]]:
    with start_shards(2) as servers:
        yield servers


async def test_a_healthy_layer_sends_through_every_shard(shards: list[RedisServer]) -> None:
    """With a latency for each, and nothing is left behind."""
    async with open_layer(shards) as layer:
        for _ in range(5):
            found = await layer.health()
            assert found.ok, found
            assert set(found.shards) == set(layer.stats()["shards"])
            assert len(found.shards) == 3
            for shard in found.shards.values():
                assert shard.latency_s is not None
                assert 0 < shard.latency_s < 2
        assert found.epoch == layer.stats()["epoch"]
        node = layer._hosts.node
        assert node is not None
        assert len(node.mailboxes) == 0
        assert len(node.groups) == 0
        print({name: f"{1000 * (s.latency_s or 0):.1f} ms" for name, s in found.shards.items()})


async def test_a_dead_and_a_silent_shard_are_named(two_shards: list[RedisServer]) -> None:
    """The other one is still healthy; the answer comes in time."""
    async with open_layer(two_shards, timeout=1.0) as layer:
        assert (await layer.health()).ok
        lives, dies = two_shards
        for harm in (dies.pause, dies.kill):
            harm()
            found = await layer.health()
            assert not found.ok
            by_port = {name.rpartition(":")[2]: shard for name, shard in found.shards.items()}
            assert by_port[str(lives.port)].ok
            assert by_port[str(dies.port)].error


async def test_health_disturbs_nobody(shards: list[RedisServer]) -> None:
    """What others wait for is not touched."""
    async with open_layer(shards) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.health()
        assert await layer.group_count("group") == 1
        await layer.send("orders", numbered(1))
        await layer.health()
        assert (await layer.receive("orders"))["n"] == 1
        assert await only_end_comes(layer, channel)


@pytest.fixture(autouse=True)
def _settings() -> None:
    if not settings.configured:
        settings.configure()


@pytest.fixture
def as_default(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_default(layer: object) -> None:
        monkeypatch.setitem(channel_layers.backends, "default", layer)

    return set_default


async def test_the_view_answers_for_load_balancers(
    two_shards: list[RedisServer], as_default: Any
) -> None:
    """200 and 503, with the details as JSON."""
    request = AsyncRequestFactory().get("/health")
    layer = ClusterChannelLayer(**shared_config(two_shards, timeout=0.5))
    as_default(layer)
    try:
        answer = await health(request)
        assert answer.status_code == 200
        body = json.loads(answer.content)
        assert body["ok"] is True
        assert len(body["shards"]) == 2
        two_shards[1].kill()
        answer = await health(request)
        assert answer.status_code == 503
        assert json.loads(answer.content)["ok"] is False
    finally:
        await layer.close()


async def test_the_view_says_what_is_misconfigured(as_default: Any) -> None:
    """Another layer is not healthy by our measure."""
    as_default(object())
    answer = await health(AsyncRequestFactory().get("/health"))
    assert answer.status_code == 503
    assert b"no ClusterChannelLayer" in answer.content
