"""One real ZooKeeper server."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from chaos.environments.base import EnvironmentFailed
from chaos.environments.proxy import ProxyThread, TcpProxy
from cluster_layer.embedded import free_port
from cluster_layer.processes import ChildProcess
from cluster_layer.servers import Server

JAR: Final = Path("/usr/share/java/zookeeper.jar")

_START_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 5
_ANSWER_TIMEOUT_S = 1.0
_SESSION = re.compile(r"^\t(0x[0-9a-f]+)\s*$", re.MULTILINE)
_CONNECTED = re.compile(r"\bsid=(0x[0-9a-f]+),lop=(?!NA)")  # with an answered operation


class Answering:
    """What a ZooKeeper server at `host` and `port` says of itself; all calls block."""

    host: str

    @property
    def port(self) -> int:
        raise NotImplementedError

    @property
    def hosts(self) -> str:
        """As kazoo and `zookeeper://` URLs name it."""
        return f"{self.host}:{self.port}"

    @property
    def serving(self) -> bool:
        """Whether it answers requests now; a member of an ensemble needs most of the others."""
        return "Mode:" in self.ask(b"srvr")

    def sessions(self) -> frozenset[str]:
        """Those that it knows of; a follower knows none."""
        return frozenset(_SESSION.findall(self.ask(b"dump")))

    def connected(self) -> frozenset[str]:
        """The sessions of those who are connected to this very server."""
        return frozenset(_CONNECTED.findall(self.ask(b"cons")))

    def ask(self, command: bytes) -> str:
        """The answer to one of ZooKeeper's four-letter words; empty when there is none."""
        return _ask(self.host, self.port, command)


class ZooKeeperServer(Server, Answering):
    """One server; its data outlives `stop()`, `kill()` and `start()`, and goes with `close()`.

    Sessions may be as short as 400 ms. `extra_config` are lines of zoo.cfg, `java_options` are
    given to the JVM (system properties for TLS and SASL, say). A member of an ensemble has a
    number and serves when most of the others run.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        extra_config: Sequence[str] = (),
        java_options: Sequence[str] = (),
        extra_jars: Sequence[str] = (),
        number: int | None = None,
    ) -> None:
        super().__init__("zookeeper")
        self._extra_config = tuple(extra_config)
        self._java_options = tuple(java_options)
        self._class_path = ":".join([str(JAR), *extra_jars])
        self._number = number
        self._port: int | None = None

    @property
    def port(self) -> int:
        """Chosen at the first start and kept from then on."""
        if self._port is None:
            raise EnvironmentFailed("this ZooKeeperServer was never started")
        return self._port

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

    def link(self, thread: ProxyThread) -> TcpProxy:
        """A way to it that can be struck; whoever asks for it closes it."""
        return TcpProxy(self.host, self.port, thread=thread)

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
            ours = str(self.directory) in _ask(self.host, port, b"conf")
            if ours and "Mode:" in _ask(self.host, port, b"srvr"):
                return True
            process.wait(0.05)
        return False


def _ask(host: str, port: int, command: bytes) -> str:
    answer = b""
    with suppress(OSError), socket.create_connection((host, port), _ANSWER_TIMEOUT_S) as connection:
        connection.sendall(command)
        while received := connection.recv(65536):
            answer += received
    return answer.decode("utf-8", errors="replace")
