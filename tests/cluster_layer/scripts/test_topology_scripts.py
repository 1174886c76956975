"""The copy of the topology, and what processes report."""

from typing import Any

from cluster_layer import scripts
from tests.cluster_layer.scripts.shard import Shard


def test_a_topology_replaces_an_older_one(shard: Shard, published: Any) -> None:
    """It is announced then, and not when the shard has it, or a newer one."""

    def install(epoch: int) -> Any:
        text = f"topology {epoch}"
        return shard.run(scripts.TOPOLOGY_INSTALL, ["epoch", "topology"], epoch, text, "pubsub")

    assert [install(epoch) for epoch in (9, 10, 10, 9)] == [b"9", b"10", b"10", b"10"]
    shard.redis.publish("pubsub", "end")
    assert [published() for _ in range(3)] == ["9", "10", "end"]
    assert shard.redis.mget("epoch", "topology") == [b"10", b"topology 10"]
    assert shard.without_ttl() == []


def test_reports_of_the_living_are_kept(shard: Shard) -> None:
    """A silent process is forgotten after a while, unless its connection is there."""

    def report(process: str) -> int:
        keys = ["reports", "beats"]
        return int(shard.run(scripts.REPORT, keys, process, f"{process} is well", "process:"))

    stopped = shard.redis.pubsub()
    stopped.subscribe("process:stopped")
    assert stopped.get_message(timeout=10)["type"] == "subscribe"
    for process in ("gone", "stopped", "silent"):
        report(process)
    long_ago = shard.now_ms() - 61_000
    shard.redis.zadd("beats", {"gone": long_ago, "stopped": long_ago})
    now = report("alive")
    assert abs(now - shard.now_ms()) < 60_000
    assert set(shard.redis.hkeys("reports")) == {b"stopped", b"silent", b"alive"}
    assert shard.redis.zcard("beats") == 3
    assert shard.redis.hget("reports", "alive") == b"alive is well"
    assert shard.without_ttl() == []
    stopped.close()
