"""Real ZooKeeper servers, one or an ensemble, and the topology that they hold."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from chaos.environments.base import EnvironmentFailed
from chaos.environments.control import CommandFailed
from chaos.environments.proxy import ProxyThread, TcpProxy
from cluster_layer.embedded import free_port
from cluster_layer.processes import ChildProcess
from topology.codec import encode
from topology.model import Topology

JAR: Final = Path("/usr/share/java/zookeeper.jar")
PATH: Final = "/chaos"
SESSION_S: Final = 1.0  # the shortest that the layer's settings allow

_START_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 5
_CLIENT_TIMEOUT_S = 10.0
_SESSION = re.compile(r"^\t(0x[0-9a-f]+)\s*$", re.MULTILINE)
_CONNECTED = re.compile(r"\bsid=(0x[0-9a-f]+),lop=(?!NA)")  # with an answered operation


class ZooKeeperServer:
    """One server; its data outlives `stop()`, `kill()` and `start()`, and goes with `close()`.

    Sessions may be as short as 400 ms. `extra_config` are lines of zoo.cfg, `java_options` are
    given to the JVM (system properties for TLS and SASL, say). A member of an ensemble has a
    number and serves when most of the others run.
    """

    def __init__(
        self,
        *,
        extra_config: Sequence[str] = (),
        java_options: Sequence[str] = (),
        extra_jars: Sequence[str] = (),
        number: int | None = None,
    ) -> None:
        self._extra_config = tuple(extra_config)
        self._java_options = tuple(java_options)
        self._class_path = ":".join([str(JAR), *extra_jars])
        self._number = number
        self._port: int | None = None
        self._process: ChildProcess | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="zookeeper-"))
        self._remove_directory = weakref.finalize(self, shutil.rmtree, self.directory, True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Chosen at the first start and kept from then on."""
        if self._port is None:
            raise EnvironmentFailed("this ZooKeeperServer was never started")
        return self._port

    @property
    def hosts(self) -> str:
        """As kazoo and `zookeeper://` URLs name it."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EnvironmentFailed("this ZooKeeperServer was never started")
        return self._process.pid

    def start(self) -> None:
        """Returns when it serves requests; keeps its port and data. EnvironmentFailed."""
        if self.running:
            return
        said = ""
        for _ in range(_PORT_ATTEMPTS):
            port = self._port if self._port is not None else free_port()
            process = self._launch(port)
            if self._wait_until_serving(process, port):
                self._process, self._port = process, port
                return
            process.kill()
            said = process.output()
            if "Address already in use" not in said:
                break
        raise EnvironmentFailed(f"ZooKeeper did not start on port {port}:\n{said}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(grace_s=10.0)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers until `resume()`."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def sessions(self) -> frozenset[str]:
        """Those that it knows of; a follower knows none."""
        return frozenset(_SESSION.findall(_ask(self.port, b"dump")))

    @property
    def serving(self) -> bool:
        """Whether it answers requests now; a member of an ensemble needs most of the others."""
        return "Mode:" in _ask(self.port, b"srvr")

    def connected(self) -> frozenset[str]:
        """The sessions of those who are connected to this very server."""
        return frozenset(_CONNECTED.findall(_ask(self.port, b"cons")))

    def close(self) -> None:
        self.kill()
        self._remove_directory()

    def _launch(self, port: int) -> ChildProcess:
        configuration = self.directory / "zoo.cfg"
        configuration.write_text(self._configuration(port), encoding="utf-8")
        if self._number is not None:
            data = self.directory / "data"
            data.mkdir(exist_ok=True)
            (data / "myid").write_text(str(self._number), encoding="ascii")
        log = self.directory / "server.log"
        log.unlink(missing_ok=True)
        return ChildProcess(
            [
                "java",
                # Start fast and small: these servers live for one test run.
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
                "-Xmx128m",
                "-Dzookeeper.forceSync=no",
                "-Dzookeeper.preAllocSize=128",
                *self._java_options,
                "-cp",
                self._class_path,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                str(configuration),
            ],
            output=log,
            cwd=self.directory,
            # A user's JAVA_TOOL_OPTIONS may open ports or print to standard error.
            env={k: v for k, v in os.environ.items() if not k.startswith("JAVA_TOOL")},
        )

    def _configuration(self, port: int) -> str:
        lines = [
            "tickTime=200",
            f"dataDir={self.directory / 'data'}",
            f"clientPort={port}",
            "clientPortAddress=127.0.0.1",
            "maxClientCnxns=0",
            "minSessionTimeout=400",
            "maxSessionTimeout=60000",
            "admin.enableServer=false",
            "4lw.commands.whitelist=conf,cons,dump,srvr",
            *self._extra_config,
        ]
        return "\n".join(lines) + "\n"

    def _wait_until_serving(self, process: ChildProcess, port: int) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while process.running and time.monotonic() < deadline:
            # The data directory tells this server from a stranger who won the port.
            if str(self.directory) in _ask(port, b"conf") and "Mode:" in _ask(port, b"srvr"):
                return True
            process.wait(0.05)
        return False


class ZooKeeperCluster:
    """The servers of a run, a way to them for each process, and the topology; all calls block.

    `path` holds the topology. `elsewhere` is a server that is none of them, for a process that is
    to read what is not true any more.
    """

    def __init__(self, count: int, thread: ProxyThread) -> None:
        self.servers = _ensemble(count)
        self._thread = thread
        self._links: dict[int, list[TcpProxy]] = {}
        self._elsewhere: ZooKeeperServer | None = None
        self.topology: Topology  # the newest that was written

    def start(self, topology: Topology) -> None:
        """Returns when all serve requests and the topology is there."""
        self.start_all()
        self.topology = topology
        with self._client() as client:
            client.create(PATH, encode(topology))

    def start_all(self) -> None:
        """Start those that do not run."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(ZooKeeperServer.start, self.servers))

    def settings_of(self, process: int) -> dict[str, Any]:
        """CONFIG topology of the process at this index."""
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in self.links_of(process))
        return {
            "url": f"zookeeper://{hosts}{PATH}",
            "session_timeout_s": SESSION_S,
            "timeout_s": SESSION_S,
        }

    def links_of(self, process: int) -> list[TcpProxy]:
        """The ways of the process at this index, one to each server."""
        if process not in self._links:
            self._links[process] = [
                TcpProxy("127.0.0.1", server.port, thread=self._thread) for server in self.servers
            ]
        return self._links[process]

    def sessions(self) -> frozenset[str]:
        """All that are alive, by any server that can tell."""
        return frozenset().union(*(one.sessions() for one in self.servers if one.running))

    def connected(self) -> frozenset[str]:
        """The sessions of those who are connected to any server now."""
        return frozenset().union(*(one.connected() for one in self.servers))

    def elsewhere(self) -> ZooKeeperServer:
        """A server by itself that holds what is the topology now; made at the first call."""
        if self._elsewhere is None:
            self._elsewhere = ZooKeeperServer()
            self._elsewhere.start()
            with _client_of(self._elsewhere.hosts) as client:
                client.create(PATH, encode(self.topology))
        return self._elsewhere

    def advance(self) -> None:
        """Write the same topology with the next epoch, whatever is there now."""
        self.topology = replace(self.topology, epoch=self.topology.epoch + 1)
        self.overwrite(encode(self.topology))

    def overwrite(self, data: bytes | None) -> None:
        """Put bytes where the topology is; None deletes it. CommandFailed."""
        with self._client() as client:
            if data is None:
                client.delete(PATH)
                return
            try:
                client.set(PATH, data)
            except NoNodeError:
                client.create(PATH, data)

    def close(self) -> None:
        for link in (link for links in self._links.values() for link in links):
            link.close()
        for server in (*self.servers, self._elsewhere):
            if server is not None:
                server.close()

    def _client(self) -> Any:
        return _client_of(",".join(server.hosts for server in self.servers))


@contextmanager
def _client_of(hosts: str) -> Iterator[KazooClient]:
    """An administrator's client; CommandFailed if it can't connect or is refused."""
    client = KazooClient(hosts, timeout=_CLIENT_TIMEOUT_S)
    try:
        client.start(timeout=_CLIENT_TIMEOUT_S)
        yield client
    except (KazooException, KazooTimeoutError) as error:
        raise CommandFailed(f"ZooKeeper at {hosts}: {error!r}") from error
    finally:
        client.stop()
        client.close()


def _ensemble(count: int) -> list[ZooKeeperServer]:
    if shutil.which("java") is None or not JAR.exists():
        raise EnvironmentFailed(
            f"this scenario needs ZooKeeper ({JAR}) and java: on Debian, apt-get install zookeeper "
            "default-jre-headless"
        )
    if count == 1:
        return [ZooKeeperServer()]
    ports = [(free_port(), free_port()) for _ in range(count)]
    members = [
        "initLimit=50",
        "syncLimit=10",
        *(
            f"server.{number}=127.0.0.1:{quorum}:{election}"
            for number, (quorum, election) in enumerate(ports, 1)
        ),
    ]
    return [ZooKeeperServer(extra_config=members, number=number + 1) for number in range(count)]


def _ask(port: int, command: bytes) -> str:
    """The answer to one of ZooKeeper's four-letter words; empty when there is none."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as connection:
        connection.sendall(command)
        while received := connection.recv(65536):
            answer += received
    return answer.decode("utf-8", errors="replace")
