"""Links to real shards, and a script that counts its executions."""

from collections.abc import Sequence
from typing import Any

import redis
import redis.exceptions

from cluster_layer.batching import Command
from cluster_layer.counters import Counters
from cluster_layer.embedded import RedisServer
from cluster_layer.keys import Keys
from cluster_layer.links import Link
from cluster_layer.running import LinkSettings
from cluster_layer.scripts import Script
from tests.support.parts import link_to

SETTINGS = LinkSettings(prefix="test", timeout_s=5.0, connect_timeout_s=5.0)
HURRIED = LinkSettings(prefix="test", timeout_s=0.5, connect_timeout_s=0.5)


class Bench:
    """Links on the running loop, closed at the end, and direct access to their shards."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._links: list[Link] = []

    def link(self, url: str, settings: LinkSettings = SETTINGS) -> Link:
        link = link_to(url, settings, self.counters)
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            await link.close()


# Counts its executions, and keeps the fence as all of ours do.
_TEXT = """
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then
    return redis.error_reply('LATE')
end
return redis.call('INCR', KEYS[2])
"""


class Counting:
    """A script, loaded on a shard, and how often it has been executed there."""

    def __init__(self, server: RedisServer) -> None:
        self.shard_url = server.url
        self.shard: Any = redis.Redis.from_url(server.url, protocol=2)
        self.script = Script(_TEXT, self.shard.script_load(_TEXT))

    def build(self, keys: Keys) -> tuple[Sequence[bytes], Command]:
        return (keys.queue("counter"),), ()

    def executions(self) -> int:
        return sum(int(self.shard.get(key)) for key in self.shard.scan_iter("*:q:counter"))

    def calls(self, command: str) -> int:
        """How often the shard has executed this command, whoever asked."""
        return int(self.shard.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])
