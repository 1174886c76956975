"""One shard, and the scripts as calls."""

from typing import Any

import redis

from cluster_layer import scripts
from cluster_layer.embedded import RedisServer
from cluster_layer.scripts import Script
from tests.support.waiting import eventually

EXPIRY_MS = 60_000
NEVER_LATE = 2**53


class Shard:
    """One shard and its scripts."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)
        self.fence_ms = NEVER_LATE
        self.epoch = 7  # the writer's

    def run(self, script: Script, keys: list[str], *arguments: Any) -> Any:
        return self.redis.eval(script.text, len(keys), *keys, *arguments)

    def write(self, script: Script, keys: list[str], *arguments: Any) -> Any:
        """Run one that begins with fence.lua."""
        return self.run(script, ["epoch", *keys], self.fence_ms, self.epoch, *arguments)

    def now_ms(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def wait_until(self, moment_ms: int) -> None:
        eventually(lambda: self.now_ms() > moment_ms)

    def pass_ms(self, milliseconds: int) -> None:
        """Return when that much time has passed on the shard's clock."""
        self.wait_until(self.now_ms() + milliseconds)

    def append(self, body: str, *, capacity: int = 10, expiry_ms: int = EXPIRY_MS) -> Any:
        arguments = (capacity, expiry_ms, body)
        return self.write(scripts.INBOX_APPEND, ["inbox", "entries"], *arguments)

    def push(self, body: str, *, capacity: int = 10, expiry_ms: int = EXPIRY_MS) -> Any:
        return self.write(scripts.QUEUE_PUSH, ["queue"], capacity, expiry_ms, body)

    def pop(self, *wanted: int, keys: tuple[str, ...] = ("queue",)) -> Any:
        return self.run(scripts.QUEUE_POP, list(keys), *wanted)

    def put_back(self, *items: bytes) -> Any:
        return self.write(scripts.QUEUE_RETURN, ["queue"], EXPIRY_MS, *items)

    def take_in(self, batch: str, *items: bytes) -> Any:
        return self.write(scripts.QUEUE_RECEIVE, ["queue", batch], EXPIRY_MS, *items)

    def take(self, name: str, count: int, queue: str = "queue") -> Any:
        return self.write(scripts.QUEUE_TAKE, [queue, "batch"], name, count, EXPIRY_MS)

    def settle(self, name: str, *, back: bool) -> Any:
        arguments = (name, int(back), EXPIRY_MS)
        return self.write(scripts.QUEUE_SETTLE, ["queue", "batch"], *arguments)

    def group_send(self, body: str = "m") -> Any:
        return self.write(scripts.GROUP_SEND, ["members", "seq"], "pubsub", body)

    def store(self, *members: str, expiry_ms: int = EXPIRY_MS, copied: int = 0) -> Any:
        described = [x for m in members for x in (m, expiry_ms, f"stored {m}")]
        arguments = ("pubsub", copied, *described)
        return self.write(scripts.GROUP_STORE, ["members", "seq", "log"], *arguments)

    def leave(self, member: str, expiry_ms: int = EXPIRY_MS, tombstone: int = 0) -> Any:
        arguments = (member, expiry_ms, "pubsub", f"leave {member}", tombstone)
        return self.write(scripts.GROUP_LEAVE, ["members", "seq", "log"], *arguments)

    def join(self, member: str, tombstone: int = 0) -> Any:
        arguments = (member, EXPIRY_MS, "pubsub", f"unstored {member}", tombstone)
        return self.write(scripts.GROUP_JOIN, ["members", "seq", "log"], *arguments)

    def quit(self, member: str, tombstone: int = 0) -> Any:
        arguments = (member, EXPIRY_MS, tombstone)
        return self.write(scripts.GROUP_QUIT, ["members"], *arguments)

    def log(self) -> list[tuple[str, int]]:
        found = self.redis.zrange("log", 0, -1, withscores=True)
        return [(control.decode(), int(position)) for control, position in found]

    def without_ttl(self) -> list[bytes]:
        return [key for key in self.redis.scan_iter() if self.redis.pttl(key) < 0]
