"""The containers of a Compose site as servers that faults strike: shards, ZooKeeper, monitors."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from chaos.environments.base import EnvironmentFailed
from chaos.environments.compose import MONITORS, ComposeSite
from chaos.environments.control import Console
from chaos.environments.operator import Command, Monitor, Operator
from chaos.environments.proxy import ProxyThread, TcpProxy
from chaos.environments.shards import OwnShard, ShardConsole
from chaos.environments.zookeeper import ZooKeeperCluster
from chaos.environments.zookeeper_server import Answering
from cluster_layer.processes import ChildProcess
from topology.model import Operator as Place

SHARD_PORT: Final = 6379
ZOOKEEPER_PORT: Final = 2181

_SERVES_WITHIN_S = 60.0
_LOOK_S = 0.05
_KILLED_WITHIN_S = 10.0
_ANSWERS_WITHIN_S = 0.5
_OURS: Final = -1  # the index of the operator's ways, of no process
#: Says which process it is, then becomes the command.
_SAY_PID: Final = 'echo $$ > "$0"; exec "$@"'
_KILL: Final = """\
tries=0
until [ -s "$0" ] || [ $tries -ge 100 ]; do tries=$((tries + 1)); sleep 0.05; done
kill -9 "$(cat "$0")"
"""


class Container:
    """One container with one port; all calls block. Its address may change when it starts."""

    def __init__(self, site: ComposeSite, service: str, port: int) -> None:
        self._site = site
        self._service = service
        self._port = port
        self._links: list[TcpProxy] = []
        self.host = ""  # until `settle`

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        """As this host sees it."""
        return self._site.pid_of(self._service)

    @property
    def running(self) -> bool:
        return self._site.is_running(self._service)

    def link(self, thread: ProxyThread) -> TcpProxy:
        """A way to it that can be struck, and that follows it; whoever asks for it closes it."""
        link = TcpProxy(self.host, self.port, thread=thread)
        self._links.append(link)
        return link

    def start(self) -> None:
        """Nothing if it runs; returns when it serves. EnvironmentFailed."""
        self._site.start(self._service)
        self.settle()

    def settle(self) -> None:
        """Wait until it serves, wherever that is now. EnvironmentFailed."""
        deadline = time.monotonic() + _SERVES_WITHIN_S
        self._follow()
        while not self.serves():
            if time.monotonic() > deadline:
                said = self._site.said(self._service)
                raise EnvironmentFailed(f"{self._service} does not serve:\n{said}")
            time.sleep(_LOOK_S)
            self._follow()

    def kill(self) -> None:
        """SIGKILL; nothing if it does not run."""
        if self.running:
            self._site.kill(self._service)

    def pause(self) -> None:
        """Its processes stop where they are; nothing if it does not run or is paused."""
        if self.running and not self._site.is_paused(self._service):
            self._site.pause(self._service)

    def resume(self) -> None:
        """Nothing if it is not paused."""
        if self._site.is_paused(self._service):
            self._site.unpause(self._service)

    def unplug(self) -> None:
        """Packets to and from it are lost until `plug_in`; connections are not told."""
        self._site.disconnect(self._service)

    def plug_in(self) -> None:
        """Connections that are still open go on if it gets the address that it had."""
        self._site.connect(self._service)
        self._follow()

    def close(self) -> None:
        """It goes with its site."""

    def serves(self) -> bool:
        """Whether it answers now."""
        raise NotImplementedError

    def _follow(self) -> None:
        """A stopped container's address may be another's when it starts again."""
        host = self._site.address_of(self._service)
        if host and host != self.host:
            self.host = host
            for link in self._links:
                link.retarget(self.host, self.port)


class ShardContainer(Container):
    """A redis-server, blank at every start."""

    def __init__(self, site: ComposeSite, service: str, directory: Path) -> None:
        super().__init__(site, service, SHARD_PORT)
        self.directory = directory  # of what it saves: nothing
        self.directory.mkdir()

    def serves(self) -> bool:
        """To a stranger it says that it is there, and no more."""
        try:
            with socket.create_connection((self.host, self.port), _ANSWERS_WITHIN_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"-NOAUTH")
        except OSError:
            return False


class ContainerShard(OwnShard):
    """Its administrator is the site's operator, who may do what docs/permissions.md lists."""

    def __init__(self, index: int, site: ComposeSite, service: str, directory: Path) -> None:
        server = self._container = ShardContainer(site, service, directory / service)
        super().__init__(index, lambda _: server, shard_id=service)
        # Whoever reads it logs in with a user and a password from its own environment.
        self.url = f"redis://{{env:SHARD_USER}}:{{env:SHARD_PASSWORD}}@{service}:{SHARD_PORT}/0"
        self._password = site.values["SHARD_OPERATOR_PASSWORD"]

    @property
    def container(self) -> ShardContainer:
        return self._container

    async def console(self) -> ShardConsole:
        console = await Console(self.server.port, self.server.host).open()
        await console.ask("AUTH", "operator", self._password)
        return console


class ZooKeeperContainer(Container, Answering):
    """A member of the site's ensemble; its data outlive its lives."""

    def __init__(self, site: ComposeSite, service: str) -> None:
        super().__init__(site, service, ZOOKEEPER_PORT)

    def serves(self) -> bool:
        return self.serving


class ContainerEnsemble(ZooKeeperCluster):
    """The site's ZooKeeper servers."""

    @property
    def url(self) -> str:
        """By ways that no fault strikes, and that follow the servers to other addresses."""
        url: str = self.settings_of(_OURS)["url"]
        return url


class MonitorContainer:
    """A monitor on a host of its own."""

    def __init__(self, site: ComposeSite, service: str) -> None:
        self._site = site
        self._service = service
        self.host = site.host_of(service)

    @property
    def running(self) -> bool:
        return self._site.is_running(self._service)

    def start(self) -> None:
        self._site.start(self._service)

    def kill(self) -> None:
        if self.running:
            self._site.kill(self._service)

    def output(self) -> str:
        return self._site.said(self._service)


class ContainerCommand(ChildProcess):
    """A command on the operator's host; `kill` is of the command there, not of the way to it."""

    def __init__(self, site: ComposeSite, number: int, words: Sequence[str], log: Path) -> None:
        self._site = site
        self._pid_file = f"/tmp/command-{number}"  # noqa: S108 - the container's
        command = site.as_operator("sh", "-c", _SAY_PID, self._pid_file, *words)
        super().__init__(command, output=log)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        with suppress(EnvironmentFailed):  # it has ended meanwhile
            self._site.operator("sh", "-c", _KILL, self._pid_file)
        if not self.wait(_KILLED_WITHIN_S):
            super().kill()


class ContainerOperator(Operator):
    """Gives commands on the site's host for operators, and runs the site's monitors."""

    def __init__(self, site: ComposeSite, zookeeper: ContainerEnsemble, directory: Path) -> None:
        super().__init__(zookeeper.url, zookeeper.options, directory)
        self._site = site
        self._commands = itertools.count()

    def begin(self, *words: str) -> Command:
        command = ("cluster-layer", *words)
        return ContainerCommand(self._site, next(self._commands), command, self.new_log())

    def run_monitors(self, count: int) -> None:
        services = MONITORS[:count]
        if not self.monitors:
            self._site.up(*services)
            self.monitors = [MonitorContainer(self._site, service) for service in services]
        for monitor in self.monitors:
            if isinstance(monitor, MonitorContainer) and not monitor.running:
                monitor.start()

    def is_at(self, monitor: Monitor, where: Place) -> bool:
        return isinstance(monitor, MonitorContainer) and monitor.host == where.host

    def close(self) -> None:
        """The monitors go with the site."""
