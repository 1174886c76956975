"""Shards: as their administrator sees them, and those whose servers are ours to kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from chaos.environments.base import EnvironmentFailed
from chaos.environments.control import CommandFailed, Console, Reply, ask
from chaos.environments.proxy import TcpProxy
from chaos.history import Audit

AOF_SHARD = 0  # the shard that writes an append-only file, if the scenario wants one
REPLICA_SHARD = 1  # the shard that has a replica, if the scenario wants one

_REPLICATED_WITHIN_S = 60.0
_SCAN = "1000"


class ShardConsole(Protocol):
    """An administrator's connection to a shard."""

    async def ask(self, *command: str) -> Reply: ...
    async def close(self) -> None: ...


class Shard:
    """One shard: what is asked of it goes past all links."""

    def __init__(self, index: int, shard_id: str, url: str) -> None:
        self.index = index
        self.id = shard_id
        self.url = url

    async def console(self) -> ShardConsole:
        """A connection to the server itself that stays open. CommandFailed."""
        raise NotImplementedError

    async def ask(self, *command: str) -> Reply:
        """Run one command on the server itself. CommandFailed."""
        console = await self.console()
        try:
            return await console.ask(*command)
        finally:
            await console.close()

    async def audit(self, *prefixes: str) -> Audit:
        """Count keys of prefixes, those without a TTL, and the items of lists, which are queues.

        Whoever may do what docs/permissions.md lists for operators may do so.
        """
        names = [name for prefix in prefixes for name in await self._keys(f"{prefix}:*")]
        lives = [await self.ask("PTTL", name) for name in names]
        lists = [name for prefix in prefixes for name in await self._keys(f"{prefix}:*", "list")]
        lengths = [await self.ask("LLEN", name) for name in lists]
        waiting = sum(length for length in lengths if isinstance(length, int))
        return Audit(self.id, len(names), lives.count(-1), waiting)

    async def remove(self, prefix: str) -> None:
        """Remove all keys of a prefix. CommandFailed."""
        for name in await self._keys(f"{prefix}:*"):
            await self.ask("UNLINK", name)

    async def _keys(self, pattern: str, kind: str = "") -> list[str]:
        """Names of keys; of one type alone, if `kind` names one."""
        of_kind = ("TYPE", kind) if kind else ()
        # Not KEYS: the server may be somebody's, and have millions.
        found: set[str] = set()
        cursor = "0"
        while True:
            reply = await self.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN, *of_kind)
            if not (isinstance(reply, list) and isinstance(reply[1], list)):
                raise CommandFailed(f"SCAN on {self.id} answered {reply!r}")
            found |= {key.decode() for key in reply[1] if isinstance(key, bytes)}
            cursor = reply[0].decode() if isinstance(reply[0], bytes) else "0"
            if cursor == "0":
                return sorted(found)


class Server(Protocol):
    """A redis-server that we start and end; all calls block."""

    host: str
    directory: Path

    @property
    def port(self) -> int: ...
    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


#: Makes the server of a shard, and further ones for its replicas, with these options.
MakeServer = Callable[[dict[str, str]], Server]


class OwnShard(Shard):
    """One redis-server, perhaps with a replica that can take its place."""

    def __init__(
        self, index: int, make: MakeServer, *, aof: bool = False, shard_id: str = ""
    ) -> None:
        self.server = make({"appendonly": "yes", "appendfsync": "always"} if aof else {})
        self._make = make
        self.replica: Server | None = None
        self.replication: TcpProxy | None = None
        self.front: TcpProxy | None = None  # the way of those whose links are never struck
        self.surgery = asyncio.Lock()  # of what replaces servers, one at a time
        super().__init__(index, shard_id or f"shard-{index}", "")

    async def console(self) -> ShardConsole:
        return await Console(self.server.port, self.server.host).open()

    async def ask(self, *command: str, server: Server | None = None) -> Reply:
        if server is None:
            return await super().ask(*command)
        return await ask(server.port, *command, host=server.host)

    async def start(self, *, with_replica: bool) -> None:
        await asyncio.to_thread(self.server.start)
        self.url = f"redis://{self.server.host}:{self.server.port}"
        if with_replica:
            await self.attach(self._make({}))

    async def attach(self, replica: Server) -> None:
        """Start a replica, and return when it has the primary's data. CommandFailed."""
        await asyncio.to_thread(replica.start)
        self.replica = replica
        self.replication = TcpProxy(self.server.host, self.server.port)
        await self.ask("REPLICAOF", "127.0.0.1", str(self.replication.port), server=replica)
        try:
            async with asyncio.timeout(_REPLICATED_WITHIN_S):
                while not await self._has_data(replica):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise CommandFailed(f"{self.id}'s replica does not get its data") from None

    async def promote(self) -> None:
        """The replica becomes the primary; the old one is killed and comes back as a replica."""
        old = self.server
        await asyncio.to_thread(old.kill)
        await self.split()
        self.server = self.required_replica()
        await self.rejoin(old)

    async def split(self) -> None:
        """The replica stops following, and takes writes as well."""
        replica = self.required_replica()
        if self.replication is not None:
            await asyncio.to_thread(self.replication.close)
            self.replication = None
        await self.ask("REPLICAOF", "NO", "ONE", server=replica)

    async def rejoin(self, old: Server) -> None:
        """A former primary that has been killed becomes the replica of the present one."""
        self.replica = None
        wipe(old)
        await self.attach(old)

    def required_replica(self) -> Server:
        if self.replica is None:
            raise EnvironmentFailed(f"{self.id} has no replica to promote")
        return self.replica

    async def _has_data(self, replica: Server) -> bool:
        info = await self.ask("INFO", "replication", server=replica)
        return isinstance(info, bytes) and b"master_link_status:up" in info

    def close(self) -> None:
        for server in (self.server, self.replica):
            if server is not None:
                server.close()
        if self.replication is not None:
            self.replication.close()


def wipe(server: Server) -> None:
    """Remove what a stopped server would load at its next start."""
    for path in sorted(server.directory.rglob("*"), reverse=True):
        if path.suffix in (".rdb", ".aof", ".manifest", ".incr", ".base"):
            path.unlink()
