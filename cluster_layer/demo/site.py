"""Three shards, a topology in a file, and two Daphne servers, all on free ports of this host."""

import os
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster_layer.demo.state import write_state
from cluster_layer.demo.status import status_of
from cluster_layer.embedded import RedisServer, free_port
from cluster_layer.processes import ChildProcess
from topology import Shard, Topology
from topology.errors import ClusterError
from topology.ids import new_cluster_id
from topology.planning import initial_topology
from topology.stores import open_store

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 5


class ServerFailed(ClusterError):
    """A Daphne server did not start, or ended by itself."""


class Site:
    """The running demo; everything that it started is gone at the end of its `with` block."""

    topology: Topology

    def __init__(self, *, shards: int = 3, servers: int = 2) -> None:
        self.shards = {f"shard-{n}": RedisServer() for n in range(1, shards + 1)}
        self.urls: list[str] = []
        self._server_count = servers
        self._servers: list[ChildProcess] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory("-chat")))
            for server in self.shards.values():
                cleanup.enter_context(server)
            self.topology = self._write_topology()
            self.write_state()
            for _ in range(self._server_count):
                self._start_server(cleanup)
            self.write_state()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    @property
    def pids(self) -> list[int]:
        """Of everything that runs now."""
        shards = [server.pid for server in self.shards.values() if server.running]
        return shards + [server.pid for server in self._servers if server.running]

    def write_state(self) -> None:
        """Tell the servers where everything is; to be called after each change."""
        shards = self.shards.items()
        write_state(
            self._directory,
            {
                "servers": self.urls,
                "shards": {
                    shard: {"port": server.port, "pid": server.pid if server.running else None}
                    for shard, server in shards
                },
            },
        )

    def raise_if_a_server_ended(self) -> None:
        for url, server in zip(self.urls, self._servers, strict=True):
            if not server.running:
                raise ServerFailed(f"the server at {url} ended by itself:\n{server.output()}")

    def _write_topology(self) -> Topology:
        shards = [Shard(id=shard, url=server.url) for shard, server in self.shards.items()]
        topology = initial_topology(shards, cluster=new_cluster_id())
        store = open_store((self._directory / "topology.json").as_uri())
        try:
            store.write(topology, expected_epoch=None)
        finally:
            store.close()
        return topology

    def _start_server(self, cleanup: ExitStack) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            server = self._daphne(port)
            cleanup.callback(server.stop)
            if self._serves(url, server):
                self.urls.append(url)
                self._servers.append(server)
                return
            server.kill()
            said = server.output()
            if "in use" not in said or attempt == _PORT_ATTEMPTS:
                raise ServerFailed(f"Daphne did not start on port {port}:\n{said}")

    def _daphne(self, port: int) -> ChildProcess:
        environment = os.environ | {
            "CHAT_SITE_DIRECTORY": str(self._directory),
            "DJANGO_SETTINGS_MODULE": "cluster_layer.demo.settings",
        }
        command = [sys.executable, "-m", "daphne", "--bind", "127.0.0.1", "--port", str(port)]
        return ChildProcess(
            [*command, "--verbosity", "0", "cluster_layer.demo.asgi:application"],
            output=self._directory / f"server-{port}.log",
            cwd=_REPOSITORY,
            env=environment,
        )

    def _serves(self, url: str, server: ChildProcess) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while server.running and time.monotonic() < deadline:
            # A stranger may have won the port: only the process id tells that it is ours.
            with suppress(OSError, ValueError):
                return bool(status_of(url)["pid"] == server.pid)
            server.wait(0.1)
        return False
