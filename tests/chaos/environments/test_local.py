"""The environment of a run: servers, links, processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.environments.base import PREFIX, EnvironmentFailed, Plan
from chaos.environments.clock import LocalRedis
from chaos.environments.control import CommandFailed, ask
from chaos.environments.local import WORKER, LocalCluster
from chaos.environments.shards import OwnShard
from chaos.history import Audit
from cluster_layer.embedded import RedisServer, free_port
from tests.support.waiting import eventually_async


def local_server(options: dict[str, str]) -> LocalRedis:
    return LocalRedis(options=options)


async def test_commands_are_answered(redis_server: RedisServer) -> None:
    """With every kind of reply."""
    port = redis_server.port
    assert await ask(port, "PING") == b"PONG"
    assert await ask(port, "RPUSH", "list", "a b", "") == 2
    assert await ask(port, "LRANGE", "list", "0", "-1") == [b"a b", b""]
    assert await ask(port, "GET", "nothing") is None


async def test_a_refusal_is_an_error(redis_server: RedisServer) -> None:
    """With the server's words; so is silence."""
    with pytest.raises(CommandFailed, match="unknown command"):
        await ask(redis_server.port, "NONSENSE")
    with pytest.raises(CommandFailed, match="on port"):
        await ask(free_port(), "PING")


async def test_an_audit_counts_what_is_left() -> None:
    """Keys, keys that live for ever, items of queues."""
    shard = OwnShard(2, local_server)
    try:
        await shard.start(with_replica=False)
        await shard.ask("SET", "chaos:bounded", "1", "EX", "100")
        await shard.ask("RPUSH", "chaos:queue", "a", "b")
        await shard.ask("SET", "somebody's", "1")
        assert await shard.audit(PREFIX) == Audit("shard-2", keys=2, unbounded=1, waiting=2)
    finally:
        shard.close()


async def test_a_promoted_replica_has_old_data_and_gets_a_replica_again() -> None:
    """What was written after it was cut off is gone."""
    shard = OwnShard(1, local_server)
    try:
        await shard.start(with_replica=True)
        await shard.ask("SET", "early", "1")
        # Not WAIT: it counts what its own connection wrote, and every question has one of its own.
        await eventually_async(lambda: shard.ask("EXISTS", "early", server=shard.replica))
        assert shard.replication is not None
        shard.replication.blackhole("both", swallow=True)
        await shard.ask("SET", "late", "1")
        before = shard.server.port
        await shard.promote()
        assert shard.server.port != before
        assert await shard.ask("KEYS", "*") == [b"early"]
        assert await shard.ask("PING", server=shard.replica) == b"PONG"
    finally:
        shard.close()


async def test_a_process_that_cannot_start_is_told(tmp_path: Path) -> None:
    """With its last words, and nothing is left running."""
    config = {"no_such_setting": 1}
    plan = Plan("no-such-workload", "1", config, WORKER, shards=2, processes=1)
    cluster = LocalCluster(plan, tmp_path)
    with pytest.raises(EnvironmentFailed, match="no_such_setting"):
        async with cluster:
            pass
    for shard in cluster.shards:
        with pytest.raises(CommandFailed):
            await shard.ask("PING")
