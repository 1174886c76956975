"""Every process and every shard in a network of its own: packets are lost, not bytes held.

Linux network namespaces, one per process and shard, joined by a router in another one. A rule of
the router drops, without a word, what goes from one address to another: so each direction of each
link can be blocked by itself, and TCP does what it does when packets are lost. Needs root.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from chaos.environments.base import PREFIX, EnvironmentFailed, Need, Plan
from chaos.environments.cluster import Cluster
from chaos.environments.control import CommandFailed, ask
from chaos.environments.processes import WorkerProcess
from chaos.environments.proxy import Direction
from chaos.environments.shards import AOF_SHARD, OwnShard
from cluster_layer.embedded import find_binary
from cluster_layer.processes import ChildProcess
from topology.codec import encode
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology

PORT: Final = 6379
NETWORKS: Final = "198.18"  # set aside for tests of networks (RFC 2544)

_COMMAND_S = 10.0
_START_S = 30.0
_NAME: Final = re.compile(r"chaos-(\d+)-\w+")


class NamespaceCluster(Cluster):
    """Shards and processes whose networks are apart."""

    name = "netns"
    provides = frozenset({Need.BLOCKS, Need.PROCESSES, Need.COMMANDS, Need.SERVERS, Need.DISKS})

    def __init__(self, plan: Plan, directory: Path) -> None:
        super().__init__(plan, directory)
        self.shards: list[OwnShard] = []
        self.links: dict[tuple[int, int], NamespaceLink] = {}

    async def _set_up(self, opening: AsyncExitStack) -> None:
        network = Network()
        opening.callback(network.close)
        for index in range(self.plan.shards):
            host = network.add(f"s{index}")
            make = partial(NamespacedRedis, host)
            shard = OwnShard(index, make, aof=self.plan.aof and index == AOF_SHARD)
            opening.callback(shard.close)
            self.shards.append(shard)
            await shard.start(with_replica=False)
        shards = [Shard(shard.id, shard.url) for shard in self.shards]
        topology = initial_topology(shards, cluster=new_cluster_id())
        path = self.directory / "topology.json"
        path.write_bytes(encode(topology))
        for index in range(self.plan.processes):
            host = network.add(f"p{index}")
            for shard in self.shards:
                link = NamespaceLink(network, host, network.hosts[f"s{shard.index}"])
                self.links[index, shard.index] = link
            self.processes.append(
                WorkerProcess(
                    index,
                    self.plan,
                    self.directory,
                    config={"prefix": PREFIX, "topology": path.as_uri()},
                    hosts=[shard.url for shard in self.shards],
                    launch=host.launch,
                )
            )


class Host:
    """One namespace with one address."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    def launch(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one there, as the same process."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def retransmitted(self) -> int:
        """How many TCP segments it has sent again."""
        lines = _run(self.launch(["cat", "/proc/net/snmp"])).splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])


class Network:
    """A router and the hosts around it; this program reaches them all."""

    def __init__(self) -> None:
        _require_possible()
        _remove_leftovers()
        self._id = f"chaos-{os.getpid()}-{secrets.token_hex(2)}"
        self._router = f"{self._id}r"
        self._net = f"{NETWORKS}.{secrets.randbelow(256)}"
        self.hosts: dict[str, Host] = {}
        _ip("netns", "add", self._router)
        try:
            forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
            _run(["ip", "netns", "exec", self._router, "sh", "-c", forward])
            self._join("", 0, f"{self._id[6:]}h")
            _ip("route", "add", f"{self._net}.0/24", "via", f"{self._net}.1")
        except BaseException:
            self.close()
            raise

    def add(self, name: str) -> Host:
        """A host that all others reach."""
        number = len(self.hosts) + 1
        namespace = f"{self._id}{name}"
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        self._join(namespace, number, "eth0")
        _ip("-n", namespace, "route", "add", "default", "via", self._address(number, 1))
        host = self.hosts[name] = Host(namespace, self._address(number, 2))
        return host

    def block(self, source: Host, target: Host) -> None:
        """Drop every packet from one to the other."""
        _ip("-n", self._router, "rule", "add", *_rule(source, target))

    def unblock(self, source: Host, target: Host) -> None:
        """Nothing if it was not blocked."""
        with suppress(CommandFailed):
            while True:  # two faults may have blocked it
                _ip("-n", self._router, "rule", "del", *_rule(source, target))

    def close(self) -> None:
        while self.hosts:
            _ip("netns", "del", self.hosts.popitem()[1].namespace)
        with suppress(CommandFailed):  # the link to us goes with it, and the route with the link
            _ip("netns", "del", self._router)

    def _join(self, namespace: str, number: int, device: str) -> None:
        """Lay a cable between the router and a namespace; the empty one is ours."""
        there = ["-n", namespace] if namespace else []
        where = ["netns", namespace] if namespace else []
        cable = f"v{number}"
        if not namespace:
            _ip("link", "add", device, "type", "veth", "peer", "name", cable, "netns", self._router)
        else:
            ours = ("link", "add", cable, "type", "veth", "peer", "name", device)
            _ip("-n", self._router, *ours, *where)
        _ip("-n", self._router, "addr", "add", f"{self._address(number, 1)}/30", "dev", cable)
        _ip("-n", self._router, "link", "set", cable, "up")
        _ip(*there, "addr", "add", f"{self._address(number, 2)}/30", "dev", device)
        _ip(*there, "link", "set", device, "up")

    def _address(self, number: int, end: int) -> str:
        return f"{self._net}.{4 * number + end}"


class NamespaceLink:
    """The way between one process and one shard."""

    def __init__(self, network: Network, process: Host, shard: Host) -> None:
        self._network = network
        self._process = process
        self._shard = shard

    @property
    def reads_disturbed(self) -> int:
        """Segments that either end has sent again, because nobody acknowledged them."""
        return self._process.retransmitted() + self._shard.retransmitted()

    def blackhole(self, direction: Direction = "both", *, swallow: bool = False) -> None:
        """Packets are dropped until `heal()`; those of open connections are sent again by then.

        `swallow` makes no difference: the network never loses what TCP can repeat.
        """
        del swallow
        if direction != "replies":
            self._network.block(self._process, self._shard)
        if direction != "requests":
            self._network.block(self._shard, self._process)

    def heal(self) -> None:
        self._network.unblock(self._process, self._shard)
        self._network.unblock(self._shard, self._process)


class NamespacedRedis:
    """A redis-server on a host of the network."""

    def __init__(self, host: Host, options: dict[str, str]) -> None:
        self._host = host
        self._options = options
        self._binary = find_binary()
        self._process: ChildProcess | None = None
        self.host = host.address
        self.port = PORT
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))

    @property
    def pid(self) -> int:
        return self._child.pid

    def start(self) -> None:
        settings = {
            "port": str(PORT),
            "bind": self.host,
            "protected-mode": "no",
            "dir": str(self.directory),
            "save": '""',
            **self._options,
        }
        configuration = self.directory / "redis.conf"
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        configuration.write_text("".join(lines), encoding="utf-8")
        command = self._host.launch([self._binary, str(configuration)])
        log = self.directory / "server.log"
        self._process = ChildProcess(command, output=log, cwd=self.directory)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if not self._process.running or time.monotonic() > deadline:
                self._process.kill()
                raise EnvironmentFailed(f"no redis-server there:\n{self._process.output()}")
            self._process.wait(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _child(self) -> ChildProcess:
        if self._process is None:
            raise EnvironmentFailed("this redis-server was never started")
        return self._process

    def _answers(self) -> bool:
        with suppress(CommandFailed):
            # Called in a thread, which has no loop of its own.
            return asyncio.run(ask(PORT, "PING", host=self.host)) == b"PONG"
        return False


def _rule(source: Host, target: Host) -> list[str]:
    return ["from", source.address, "to", target.address, "blackhole"]


def _require_possible() -> None:
    if shutil.which("ip") is None:
        raise EnvironmentFailed(
            "the environment netns needs the program ip (on Debian: apt-get install iproute2)"
        )
    if os.geteuid() != 0:
        raise EnvironmentFailed(
            "the environment netns needs root: run it with sudo, or use --environment local"
        )
    probe = f"chaos-{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "del", probe)
    except CommandFailed as error:
        raise EnvironmentFailed(f"network namespaces do not work here: {error}") from error


def _remove_leftovers() -> None:
    """Of runs that were killed."""
    for line in _run(["ip", "netns", "list"]).splitlines():
        name = line.partition(" ")[0]
        found = _NAME.match(name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with suppress(CommandFailed):
                _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str]) -> str:
    """What it printed; CommandFailed with its words."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
