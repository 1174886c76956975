"""The site of docker-compose.yml: brought up, struck and taken down, by the docker command line."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from chaos.environments.base import EnvironmentFailed
from chaos.environments.prometheus import Prometheus
from cluster_layer.embedded import free_port

CHECKOUT: Final = Path(__file__).resolve().parents[2]
OPERATOR: Final = "ops"
ZOOKEEPERS: Final = ("zookeeper-1", "zookeeper-2", "zookeeper-3")
SHARDS: Final = ("shard-1", "shard-2", "shard-3")
NEW_SHARD: Final = "shard-4"  # it runs, and is not in the first topology
MONITORS: Final = ("monitor-1", "monitor-2")
BACK: Final = "back"  # the network of shards and ZooKeeper

_COMMAND_TIMEOUT_S = 180.0
_POLL_S = 0.5


def missing_engine() -> str | None:
    """Why no site can be brought up here; None if it can, provided that its images are there."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        _run(["docker", "info", "--format", "{{.ServerVersion}}"], timeout_s=20)
    except EnvironmentFailed as error:
        return f"no Docker engine answers: {error}"
    try:
        _compose_command()
    except EnvironmentFailed as error:
        return str(error)
    return None


def missing_images(*variables: str) -> list[str]:
    """Of the images that these variables of docker-compose.yml name, those that are not here."""
    text = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    usual = dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text))
    images = [os.environ.get(variable) or usual[variable] for variable in variables]
    return [image for image in images if not _is_here(image)]


class ComposeSite:
    """One site under a project name of its own, with passwords of its own; `close` removes it."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are variables of deploy/example.env."""
        self.project = f"cluster-layer-{secrets.token_hex(4)}"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.prometheus = Prometheus(f"127.0.0.1:{free_port()}")
        self.values = _values(settings or {})  # of all variables, passwords too
        self.values["SITE_ADDRESS"] = self.url.removeprefix("http://")
        self.values["PROMETHEUS_ADDRESS"] = self.prometheus.address
        self._directory = Path(tempfile.mkdtemp(prefix="compose-"))
        self._containers: dict[str, str] = {}  # service -> id
        self._composing = threading.Lock()  # what is going up must be there to be taken down
        self._closed = False
        self._command = [
            *_compose_command(),
            *("--project-name", self.project),
            *("--project-directory", str(CHECKOUT)),
            *("--env-file", str(self._write_values())),
            *("--file", str(CHECKOUT / "docker-compose.yml")),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def up(self, *services: str, profile: str = "") -> None:
        """Create and start these services; all of them if none is named. EnvironmentFailed."""
        profiles = ["--profile", profile] if profile else []
        with self._composing:
            if self._closed:
                raise EnvironmentFailed(f"{self.project} has been taken down")
            self._compose(*profiles, "up", "--detach", "--no-build", *services)

    def close(self) -> None:
        """Every container, network and volume of this project is gone afterwards.

        Also if another thread is bringing it up: whatever that makes is taken down after it.
        """
        profiles = ("--profile", "more", "--profile", "metrics")
        with self._composing:
            self._closed = True
            self._compose(*profiles, "down", "--volumes", "--timeout", "2")
        shutil.rmtree(self._directory, ignore_errors=True)

    def operator(self, *command: str, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
        """What a command on the operator's host printed. EnvironmentFailed if it failed."""
        return _run(self.as_operator(*command), timeout_s=timeout_s)

    def as_operator(self, *command: str) -> list[str]:
        """The command of this host that runs another one on the operator's host."""
        return ["docker", "exec", self._container(OPERATOR), *command]

    def status(self) -> dict[str, Any]:
        """What `cluster-layer status` says."""
        found: dict[str, Any] = json.loads(self.operator("cluster-layer", "status", "--json"))
        return found

    def homes(self, groups: Sequence[str]) -> dict[str, str]:
        """Group -> the shard that it lives on now."""
        places = json.loads(self.operator("cluster-layer", "locate", "--json", *groups))
        return {place["name"]: place["shard"] for place in places}

    def kill(self, service: str) -> None:
        """SIGKILL; the engine does not restart what was killed so."""
        _run(["docker", "kill", self._container(service)])

    def start(self, service: str) -> None:
        _run(["docker", "start", self._container(service)])

    def pause(self, service: str) -> None:
        """All processes of the container stop where they are."""
        _run(["docker", "pause", self._container(service)])

    def unpause(self, service: str) -> None:
        _run(["docker", "unpause", self._container(service)])

    def disconnect(self, service: str, network: str = BACK) -> None:
        """Pull the plug: packets to and from it are lost, connections are not told."""
        name = f"{self.project}_{network}"
        _run(["docker", "network", "disconnect", name, self._container(service)])

    def connect(self, service: str, network: str = BACK) -> None:
        name, container = f"{self.project}_{network}", self._container(service)
        _run(["docker", "network", "connect", "--alias", service, name, container])

    def address_of(self, service: str, network: str = BACK) -> str:
        """Its IP address in a network; empty while it is stopped or unplugged."""
        name = f"{self.project}_{network}"
        networks = json.loads(self._inspected(service, "{{json .NetworkSettings.Networks}}"))
        address: str = networks.get(name, {}).get("IPAddress", "")
        return address

    def is_running(self, service: str) -> bool:
        """Also while it is paused."""
        return self._inspected(service, "{{.State.Running}}").strip() == "true"

    def is_paused(self, service: str) -> bool:
        return self._inspected(service, "{{.State.Paused}}").strip() == "true"

    def pid_of(self, service: str) -> int:
        """Of its first process, as this host sees it; 0 while there is none."""
        return int(self._inspected(service, "{{.State.Pid}}"))

    def host_of(self, service: str) -> str:
        """What the container calls itself."""
        shown = self._inspected(service, "{{.Config.Hostname}}")
        return shown.strip()

    def health(self, service: str) -> str:
        """ "healthy", "unhealthy", "starting"; "running" without a health check, or why not."""
        shown = self._inspected(
            service, "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        )
        return shown.strip()

    def wait_healthy(self, services: Sequence[str], timeout_s: float) -> None:
        """EnvironmentFailed, with what its container printed, for one that does not get there."""
        deadline = time.monotonic() + timeout_s
        for service in services:
            while (health := self.health(service)) not in ("healthy", "running"):
                if time.monotonic() > deadline:
                    raise EnvironmentFailed(
                        f"{service} is {health} after {timeout_s:g} s:\n{self.said(service)}"
                    )
                time.sleep(_POLL_S)

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """EnvironmentFailed if the condition does not hold in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise EnvironmentFailed(f"after {timeout_s:g} s still not: {what}")
            time.sleep(_POLL_S)

    def said(self, service: str, lines: int = 20) -> str:
        """The last lines that a service printed."""
        command = ["docker", "logs", "--tail", str(lines), self._container(service)]
        return _run(command, errors_too=True)

    def _inspected(self, service: str, template: str) -> str:
        return _run(["docker", "inspect", "--format", template, self._container(service)])

    def _container(self, service: str) -> str:
        """Its id: the name's separator depends on the version of Compose."""
        if known := self._containers.get(service):
            return known
        labels = (
            "com.docker.compose.project=" + self.project,
            f"com.docker.compose.service={service}",
        )
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        found = _run(["docker", "ps", "--all", "--quiet", *filters]).split()
        if len(found) != 1:
            raise EnvironmentFailed(f"there are {len(found)} containers of {service}")
        self._containers[service] = found[0]
        return found[0]

    def _compose(self, *arguments: str) -> str:
        return _run([*self._command, *arguments])

    def _write_values(self) -> Path:
        path = self._directory / "env"
        path.touch(mode=0o600)
        lines = [f"{name}={value}\n" for name, value in self.values.items()]
        path.write_text("".join(lines), encoding="utf-8")
        return path


def _values(settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the example, with passwords of its own."""
    example = (CHECKOUT / "deploy" / "example.env").read_text(encoding="utf-8")
    values = dict(
        line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#")
    )
    for name, value in values.items():
        if value.startswith("change-me"):
            values[name] = secrets.token_urlsafe(16)
    return {**values, **settings}


def _is_here(image: str) -> bool:
    try:
        _run(["docker", "image", "inspect", "--format", "{{.Id}}", image])
    except EnvironmentFailed:
        return False
    return True


def _compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        try:
            _run([*command, "version"], timeout_s=30)
        except EnvironmentFailed:
            continue
        return command
    raise EnvironmentFailed("there is neither `docker compose` nor docker-compose")


def _run(
    command: Sequence[str], *, timeout_s: float = _COMMAND_TIMEOUT_S, errors_too: bool = False
) -> str:
    """What it printed. EnvironmentFailed with what it said if it failed or took too long."""
    try:
        outcome = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            # Ctrl-C on a terminal is for this process: what it has begun comes to its end.
            process_group=0,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailed(f"{' '.join(command[:3])} ...: {type(error).__name__}") from error
    if outcome.returncode != 0:
        said = (outcome.stderr or outcome.stdout).strip()[-1500:]
        raise EnvironmentFailed(
            f"{' '.join(command[:3])} ... ended with {outcome.returncode}: {said}"
        )
    return outcome.stdout + (outcome.stderr if errors_too else "")
