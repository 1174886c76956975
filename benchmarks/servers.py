"""The servers of one cell: blank Redis shards or a NATS server, gone with the cell's process."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
from redis import Redis

from cluster_layer.embedded import RedisServer, find_binary, free_port
from cluster_layer.processes import ChildProcess

START_S = 10.0


class ServerMissing(Exception):
    """A peer's server is not installed here."""


class NatsServer:
    """A nats-server on free ports, with its monitoring port."""

    def __init__(self, directory: Path) -> None:
        self.port, self._monitor = free_port(), free_port()
        options = ["-a", "127.0.0.1", "-p", str(self.port), "-m", str(self._monitor)]
        output = directory / "nats.log"
        self.process = ChildProcess([find_nats(), *options], output=output)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline or not self.process.running:
                raise ServerMissing(f"nats-server did not start: {self.process.output()}")
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def connections(self) -> int:
        """How many connections it has ever accepted."""
        with urlopen(f"http://127.0.0.1:{self._monitor}/varz", timeout=5) as answer:
            return int(json.load(answer)["total_connections"])

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.25) as probe:
            return probe.recv(4) == b"INFO"
        return False


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a cell's servers are; NATS's is empty if there is none."""

    redis: tuple[str, ...]
    nats: str


class Servers:
    """What a cell's layers talk to, and what its servers say about themselves."""

    def __init__(self, shards: list[RedisServer], nats: NatsServer | None) -> None:
        self.shards = shards
        self.nats = nats
        self._clients = [Redis.from_url(shard.url, protocol=2) for shard in shards]

    @property
    def addresses(self) -> Addresses:
        urls = tuple(shard.url for shard in self.shards)
        return Addresses(urls, self.nats.url if self.nats else "")

    def client(self, index: int = 0) -> Redis:
        """A plain client of one shard, for questions beside the measurement."""
        return self._clients[index]

    def cpu_s(self) -> float:
        """Processor time that all servers have used."""
        if self.nats is not None:
            return self.nats.cpu_s()
        return sum(_cpu_s(client) for client in self._clients)

    def connections(self) -> int:
        """How many connections all servers have ever accepted."""
        if self.nats is not None:
            return self.nats.connections()
        return sum(int(_info(c, "stats")["total_connections_received"]) for c in self._clients)

    def memory_bytes(self) -> int:
        """What all servers have allocated."""
        if self.nats is not None:
            return int(psutil.Process(self.nats.process.pid).memory_info().rss)
        return sum(int(_info(client, "memory")["used_memory"]) for client in self._clients)


def find_nats() -> str:
    """ServerMissing: it is not installed."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if found is None:
        raise ServerMissing("no nats-server found (on Debian: apt-get install nats-server)")
    return found


def redis_binary() -> str:
    """The installed Redis, as a site would run it; else the embedded one."""
    return shutil.which("redis-server") or find_binary()


@contextmanager
def start_redis(count: int) -> Iterator[Servers]:
    """`count` blank shards; as many processes as shards, no persistence."""
    shards = [RedisServer(binary=redis_binary()) for _ in range(count)]
    try:
        for shard in shards:
            shard.start()
        yield Servers(shards, None)
    finally:
        for shard in shards:
            shard.close()


@contextmanager
def start_nats() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="nats-") as directory:
        server = NatsServer(Path(directory))
        try:
            yield Servers([], server)
        finally:
            server.process.kill()


def _info(client: Redis, section: str) -> dict[str, str]:
    answer = client.info(section)
    assert isinstance(answer, dict)
    return answer


def _cpu_s(client: Redis) -> float:
    cpu = _info(client, "cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
