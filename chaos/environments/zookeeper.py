"""Real ZooKeeper servers, one or an ensemble, wherever they run, and the topology they hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import CREATOR_ALL_ACL

from chaos.environments.base import EnvironmentFailed
from chaos.environments.control import CommandFailed
from chaos.environments.proxy import ProxyThread, TcpProxy
from chaos.environments.zookeeper_server import JAR, ZooKeeperServer
from cluster_layer.embedded import free_port
from topology.codec import decode, encode
from topology.errors import TopologyInvalid
from topology.model import Topology

PATH: Final = "/chaos"
SESSION_S: Final = 1.0  # the shortest that the layer's settings allow

_CLIENT_TIMEOUT_S = 10.0


class Member(Protocol):
    """One server of an ensemble, whoever runs it; all calls block."""

    host: str

    @property
    def port(self) -> int: ...
    @property
    def hosts(self) -> str: ...
    @property
    def running(self) -> bool: ...
    @property
    def serving(self) -> bool: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...
    def sessions(self) -> frozenset[str]: ...
    def connected(self) -> frozenset[str]: ...
    def link(self, thread: ProxyThread) -> TcpProxy: ...


class ZooKeeperCluster:
    """The servers of a run, a way to them for each process, and the topology; all calls block.

    `path` holds the topology; `digest` is "user:password" where it belongs to somebody.
    `elsewhere` is a server that is none of them, for a process that is to read what is not true
    any more.
    """

    def __init__(
        self,
        servers: Sequence[Member],
        thread: ProxyThread,
        *,
        path: str = PATH,
        digest: str | None = None,
    ) -> None:
        self.servers = servers
        self._path = path
        self._digest = digest
        self._thread = thread
        self._links: dict[int, list[TcpProxy]] = {}
        self._elsewhere: ZooKeeperServer | None = None
        self.topology: Topology  # the newest that was written

    def start(self, topology: Topology) -> None:
        """Returns when all serve requests and the topology is there."""
        self.start_all()
        self.topology = topology
        with self._client() as client:
            client.create(self._path, encode(topology))

    def adopt(self) -> None:
        """They run, and somebody else has made the topology. CommandFailed: there is none."""
        with self._client() as client:
            data = _read(client, self._path)[0]
        try:
            self.topology = decode(data)
        except TopologyInvalid as error:
            raise CommandFailed(f"there is no topology at {self._path}: {error}") from error

    def start_all(self) -> None:
        """Start those that do not run."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(lambda server: server.start(), self.servers))

    def settings_of(self, process: int) -> dict[str, Any]:
        """CONFIG topology of the process at this index."""
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in self.links_of(process))
        return {"url": f"zookeeper://{hosts}{self._path}", **self.options}

    @property
    def url(self) -> str:
        """For those who are not struck: past all links."""
        return f"zookeeper://{','.join(server.hosts for server in self.servers)}{self._path}"

    @property
    def options(self) -> dict[str, Any]:
        login = {"digest": self._digest} if self._digest else {}
        return {"session_timeout_s": SESSION_S, "timeout_s": SESSION_S, **login}

    def links_of(self, process: int) -> list[TcpProxy]:
        """The ways of the process at this index, one to each server."""
        if process not in self._links:
            self._links[process] = [server.link(self._thread) for server in self.servers]
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
            (self._elsewhere,) = own_ensemble(1)
            self._elsewhere.start()
            with _client_of(self._elsewhere.hosts) as client:
                client.create(self._path, encode(self.topology), makepath=True)
        return self._elsewhere

    def newest(self) -> Topology:
        """The newest that was ever there, as far as we have seen. CommandFailed."""
        with self._client() as client:
            self._learn(_read(client, self._path)[0])
        return self.topology

    def advance(self) -> None:
        """Write the newest topology that was there with the next epoch. CommandFailed."""
        self._replace(self._next)

    def overwrite(self, data: bytes | None) -> None:
        """Put bytes where the topology is; None deletes it. CommandFailed."""
        self._replace(lambda: data)

    def close(self) -> None:
        for link in (link for links in self._links.values() for link in links):
            link.close()
        for server in (*self.servers, self._elsewhere):
            if server is not None:
                server.close()

    def _next(self) -> bytes:
        self.topology = replace(self.topology, epoch=self.topology.epoch + 1)
        return encode(self.topology)

    def _replace(self, make: Callable[[], bytes | None]) -> None:
        """In place of exactly what is there, which is known afterwards if it was a topology."""
        with self._client() as client:
            while True:
                data, version = _read(client, self._path)
                self._learn(data)
                with suppress(BadVersionError, NodeExistsError, NoNodeError):
                    _swap(client, self._path, version, make())
                    return

    def _learn(self, data: bytes) -> None:
        with suppress(TopologyInvalid):
            self.topology = max(self.topology, decode(data), key=lambda one: one.epoch)

    def _client(self) -> Any:
        return _client_of(",".join(server.hosts for server in self.servers), self._digest)


@contextmanager
def _client_of(hosts: str, digest: str | None = None) -> Iterator[KazooClient]:
    """An administrator's client; CommandFailed if it can't connect or is refused."""
    login: dict[str, Any] = (
        {"auth_data": [("digest", digest)], "default_acl": CREATOR_ALL_ACL} if digest else {}
    )
    client = KazooClient(hosts, timeout=_CLIENT_TIMEOUT_S, **login)
    try:
        client.start(timeout=_CLIENT_TIMEOUT_S)
        yield client
    except (KazooException, KazooTimeoutError) as error:
        raise CommandFailed(f"ZooKeeper at {hosts}: {error!r}") from error
    finally:
        client.stop()
        client.close()


def _read(client: KazooClient, path: str) -> tuple[bytes, int]:
    """What is there and its version; -1: nothing is."""
    try:
        data, state = client.get(path)
    except NoNodeError:
        return b"", -1
    return data, state.version


def _swap(client: KazooClient, path: str, version: int, data: bytes | None) -> None:
    if version < 0:
        if data is not None:
            client.create(path, data)
    elif data is None:
        client.delete(path, version=version)
    else:
        client.set(path, data, version=version)


def own_ensemble(count: int) -> list[ZooKeeperServer]:
    """So many servers of our own, not started yet. EnvironmentFailed: there is no ZooKeeper."""
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
