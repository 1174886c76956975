"""P9: every error says whether the operation may have happened."""

from collections.abc import Iterator

import pytest
import redis

from cluster_layer import ClusterChannelLayer, scripts
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from tests.support.layers import (
    numbered,
    numbers_before_end,
    open_layer,
    outcome_of,
    receive,
    shared_config,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually, eventually_async


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis(port=redis_server.port) as connection:
        yield connection


async def _refused_everywhere(layer: ClusterChannelLayer, channel: str) -> None:
    for refused in (
        layer.send(channel, numbered(-2)),
        layer.send("orders", numbered(-2)),
        layer.group_send("group", numbered(-2)),
        layer.group_add("group", "orders"),
    ):
        with pytest.raises(ShardUnavailable) as error:
            await refused
        assert error.value.definite


async def _works_again(layer: ClusterChannelLayer, channel: str) -> None:
    """And nothing of what was refused turns up, for the channel or the group that it is in."""

    async def sent() -> bool:
        return await outcome_of(layer.send(channel, numbered(-1, end=True))) == "ok"

    await eventually_async(sent)
    assert await numbers_before_end(layer, channel) == []


async def test_a_server_without_memory_refuses_definitely(
    redis_server: RedisServer, client: "redis.Redis"
) -> None:
    """OOM is an answer: nothing was written, and later everything works."""
    async with open_layer([redis_server], timeout=0.5) as layer:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        client.config_set("maxmemory", "1")
        await _refused_everywhere(layer, channel)
        client.config_set("maxmemory", "0")
        await _works_again(layer, channel)


async def test_a_demoted_server_refuses_definitely(
    redis_server: RedisServer, client: "redis.Redis"
) -> None:
    """READONLY: a replica executes no write, so it may be tried again elsewhere."""
    with RedisServer() as primary:
        async with open_layer([redis_server], timeout=0.5) as layer:
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            client.replicaof("127.0.0.1", str(primary.port))
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
            await _refused_everywhere(layer, channel)
            client.replicaof("NO", "ONE")
            await _works_again(layer, channel)


async def test_forgotten_scripts_cost_no_error(
    redis_server: RedisServer, client: "redis.Redis"
) -> None:
    """NOSCRIPT is a refusal with a remedy: the script is loaded and the call done, once."""
    async with open_layer([redis_server]) as layer:
        channel = await layer.new_channel()
        for number in range(3):
            client.script_flush()
            await layer.group_add("group", channel)
            client.script_flush()
            await layer.send(channel, numbered(3 * number))
            client.script_flush()
            await layer.group_send("group", numbered(3 * number + 1))
            client.script_flush()
            await layer.send("orders", numbered(3 * number + 2))
            client.script_flush()
            assert await receive(layer, channel) == numbered(3 * number)
            assert await receive(layer, channel) == numbered(3 * number + 1)
            assert await receive(layer, "orders") == numbered(3 * number + 2)


async def test_a_wrong_password_is_said_without_showing_it() -> None:
    """The shard refuses the connection: definite, and no secret in the error."""
    with RedisServer(password="right-password") as server:
        url = server.url.replace("right-password", "wrong-password")
        async with open_layer(hosts=[url], timeout=0.5) as layer:
            with pytest.raises(ShardUnavailable) as error:
                await layer.send("orders", numbered(1))
            assert "password" not in repr(error.value).replace("username-password pair", "")
            assert server.url not in repr(layer)


@pytest.mark.parametrize("stored", [True, False])
async def test_an_unanswered_membership_change_is_unknown(
    redis_server: RedisServer, stored: bool
) -> None:
    """The shard executed it and the answer was lost: the error does not claim that it did not."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        config = shared_config([proxy], timeout=1)
        async with open_layer(**config) as layer:
            await layer.group_send("group", numbered(0))
            if not stored:
                await layer.group_add("group", "orders")
            change = layer.group_add if stored else layer.group_discard
            script = scripts.GROUP_STORE if stored else scripts.GROUP_LEAVE
            proxy.lose_next_reply(match=script.sha.encode())
            with pytest.raises(DeliveryUnknown):
                await change("group", "orders")

            async def sent() -> bool:
                return await outcome_of(layer.group_send("group", numbered(1))) == "ok"

            await eventually_async(sent)
            await layer.send("orders", numbered(-1, end=True))
            assert await numbers_before_end(layer, "orders") == ([1] if stored else [])
