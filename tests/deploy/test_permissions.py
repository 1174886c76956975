"""The users of the deployments: what docs/permissions.md lists for their roles, and no more."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_layer import ClusterChannelLayer
from cluster_layer.overview import Role
from cluster_layer.permissions import commands_for, patterns_for
from tests.cli.deployment import BINARIES, Deployment, deployed, findings_of, use
from tests.support.waiting import eventually_async
from tests.support.zookeeper import ZooKeeperServer

_REPOSITORY = Path(__file__).resolve().parents[2]
_DEPLOY = _REPOSITORY / "deploy"
PREFIX = "chat"
ROLES = {
    "layer": (Role.PROCESS,),
    "monitor": (Role.PROCESS, Role.OPERATOR),
    "operator": (Role.PROCESS, Role.OPERATOR, Role.CHECK),
}
PASSWORDS = {
    "layer": "SHARD_PASSWORD",
    "monitor": "SHARD_MONITOR_PASSWORD",
    "operator": "SHARD_OPERATOR_PASSWORD",
    "metrics": "SHARD_METRICS_PASSWORD",
}

Users = Mapping[str, list[str]]  # name -> rules


def _users_in(text: str) -> Users:
    lines = [line.split() for line in text.splitlines() if line.lstrip().startswith("user ")]
    return {name: rules for _, name, *rules in lines}


def users_of_compose(directory: Path) -> Users:
    """What start-shard gives to its server, which is replaced by one that shows it."""
    shown = directory / "redis-server"
    shown.write_text("#!/bin/sh\ncat\n", encoding="utf-8")
    shown.chmod(0o755)
    passwords = {variable: user for user, variable in PASSWORDS.items()}
    outcome = subprocess.run(
        ["/bin/sh", str(_DEPLOY / "compose" / "start-shard")],
        env={"PATH": f"{directory}:{os.environ['PATH']}", "SHARD_MAXMEMORY": "1gb", **passwords},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return _users_in(outcome.stdout)


def users_of_systemd(_directory: Path) -> Users:
    return _users_in((_DEPLOY / "systemd" / "shard.acl").read_text(encoding="utf-8"))


def users_of_kubernetes(_directory: Path) -> Users:
    text = (_DEPLOY / "kubernetes" / "secret.example.yaml").read_text(encoding="utf-8")
    return _users_in(yaml.safe_load(text)["stringData"]["users.acl"])


@pytest.mark.parametrize("users_of", [users_of_compose, users_of_systemd, users_of_kubernetes])
def test_users_may_what_their_role_needs(users_of: Any, tmp_path: Path) -> None:
    """Not one command, key or channel more or less; the default user is off."""
    users = dict(users_of(tmp_path))
    assert users.pop("default") == ["off"]
    assert users.pop("metrics", ["on", ">metrics", "+info", "+ping"])[2:] == ["+info", "+ping"]
    assert set(users) == set(ROLES)
    for name, rules in users.items():
        assert rules[0] == "on"
        assert rules[1].startswith(">")
        assert rules[2:] == [*patterns_for(PREFIX), *commands_for(*ROLES[name])]


def test_the_documentation_lists_them() -> None:
    """docs/permissions.md has a list for each role, in the order of the roles."""
    document = (_REPOSITORY / "docs" / "permissions.md").read_text(encoding="utf-8")
    listed = [set(one.split()) for one in re.findall(r"^```acl\n(.*?)^```", document, re.M | re.S)]
    assert listed == [*(set(commands_for(role)) for role in Role), set(patterns_for("asgi"))]


def _as_user(user: str) -> dict[str, str]:
    """An environment that logs in to shards as this user."""
    return {**os.environ, "SHARD_USER": user, "SHARD_PASSWORD": user}


def _program() -> str:
    return str(Path(sys.executable).with_name("cluster-layer"))


async def _operate(deployment: Deployment, *arguments: str) -> str:
    """What a command of the operator's printed; it wants a main thread of its own."""
    outcome = await asyncio.to_thread(
        subprocess.run,
        [_program(), *arguments, "--store", deployment.store],
        env=_as_user("operator"),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@contextmanager
def _monitor(deployment: Deployment) -> Iterator[None]:
    command = [_program(), "monitor", "--store", deployment.store]
    process = subprocess.Popen(command, env=_as_user("monitor"), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_site_works_with_the_users_of_the_deployment(
    tmp_path: Path,
    binary: str | None,
    zookeeper: ZooKeeperServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process, a planned change, `check`, and a monitor that marks a lost shard as down: nobody
    is refused anything."""
    users = users_of_compose(tmp_path)
    monkeypatch.setenv("SHARD_USER", "layer")
    monkeypatch.setenv("SHARD_PASSWORD", "layer")
    where: Any = {
        "store": f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}/topology",
        "users": "{env:SHARD_USER}:{env:SHARD_PASSWORD}@",
    }
    with deployed(tmp_path, options=({},) * 4, binary=binary, **where) as deployment:
        for shard in deployment.servers:
            for name in ROLES:
                rules = ("reset", *users[name])
                deployment.client(shard).execute_command("ACL", "SETUSER", name, *rules)
        with _monitor(deployment):
            layer = ClusterChannelLayer(
                topology=deployment.store, topology_cache=None, prefix=PREFIX
            )
            await use(layer)

            async def monitored() -> bool:
                return (
                    len(json.loads(await _operate(deployment, "status", "--json"))["monitors"]) == 1
                )

            await eventually_async(monitored)
            await _operate(deployment, "shard", "weight", "b", "3", "--yes")
            await use(layer)
            found = json.loads(await _operate(deployment, "check", "--json"))
            deployment.servers["d"].kill()

            async def is_down() -> bool:
                shards = json.loads(await _operate(deployment, "status", "--json"))["shards"]
                return ("d", "down") in {(one["id"], one["state"]) for one in shards}

            await eventually_async(is_down, 60)
            await use(layer)
            await layer.close()
        refused = [one for shard in "abc" for one in deployment.client(shard).acl_log()]
    assert findings_of(found, "shard.permissions") == [("ok", "shards")]
    # redis-py tries this, and can miss it.
    assert {one["object"] for one in refused} <= {"client", "client|setinfo"}
