"""`manage.py cluster` as a program of its own: the command line with a site's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer, start_shards
from tests.cli.deployment import deployed
from tests.support.stored import stored
from tests.support.zookeeper import ZooKeeperServer

OURS = "cluster_layer.ClusterChannelLayer"
SECRET = "k3y-of-the-site"


class Manage:
    """A Django project whose CHANNEL_LAYERS can be chosen."""

    def __init__(self, directory: Path, layers: Mapping[str, Any]) -> None:
        module = "import pathlib\nINSTALLED_APPS = ['cluster_layer']\nSECRET_KEY = 'x'\n"
        (directory / "site_settings.py").write_text(f"{module}CHANNEL_LAYERS = {dict(layers)!r}\n")
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(directory), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "site_settings",
            # Of another cluster: the settings count.
            "CLUSTER_LAYER_STORE": (directory / "nowhere.json").as_uri(),
        }

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a run says that must end with this exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "django", "cluster", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def spare() -> Iterator[RedisServer]:
    with start_shards(1) as (server,):
        yield server


def test_the_settings_say_where_the_cluster_is(
    tmp_path: Path, zookeeper: ZooKeeperServer, spare: RedisServer
) -> None:
    """init, status and a change, on ZooKeeper with its options, by the alias that is named."""
    url = f"zookeeper://{zookeeper.hosts}/manage-{tmp_path.name}"
    other = {"topology": {"url": url, "timeout_s": 5}, "topology_cache": None, "prefix": "other"}
    manage = Manage(
        tmp_path,
        {
            "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
            "other": {"BACKEND": OURS, "CONFIG": other},
        },
    )
    with start_shards(2) as servers:
        shards = [f"s{number}={server.url}" for number, server in enumerate(servers)]
        manage("--layer", "other", "init", *shards)
        assert [shard.id for shard in stored(url).shards] == ["s0", "s1"]
        manage("shard", "add", f"s2={spare.url}", "--yes", "--layer=other")
        status = json.loads(manage("--layer=other", "status", "--json"))
        assert {shard["id"] for shard in status["shards"]} == {"s0", "s1", "s2"}
        assert "InMemoryChannelLayer" in manage("status", code=2)


async def test_messages_meet_the_layers_of_the_site(tmp_path: Path) -> None:
    """Prefix, keys and capacities of the settings; nothing of them has to be said again."""
    with deployed(tmp_path) as deployment:
        config = {
            "topology": deployment.store,
            "prefix": "site",
            "symmetric_encryption_keys": [SECRET],
            "channel_capacity": {"narrow": 1},
        }
        manage = Manage(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        layer = ClusterChannelLayer(**config)
        try:
            manage("send", "jobs", '{"type": "x"}')
            assert await layer.receive("jobs") == {"type": "x"}
            await layer.send("jobs", {"type": "y"})
            assert json.loads(manage("receive", "jobs")) == {"type": "y"}
            manage("send", "narrow", '{"type": "x"}')
            assert "full" in manage("send", "narrow", '{"type": "x"}', code=1)
            manage("send", "--capacity", "2", "narrow", '{"type": "x"}')
        finally:
            await layer.close()
        said = manage("send", "--prefix", "asgi", "jobs", "{}", code=2)
        assert "--prefix: CHANNEL_LAYERS['default'] says it" in said


def test_exit_codes_pass_through(tmp_path: Path) -> None:
    """Those of the verbs, of wrong usage, and of a shard that is away."""
    with deployed(tmp_path) as deployment:
        config = {"topology": deployment.store}
        manage = Manage(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        assert "monitor" in manage("--help")
        manage("no-such-verb", code=2)
        assert "--need" in manage("probe", "--help")
        manage("probe")
        assert manage("receive", "jobs", "--timeout", "0.2", code=7) == ""
        manage("shard", "add", "redis://127.0.0.1:1", "--yes", code=1)
        assert "--store: CHANNEL_LAYERS['default'] says it" in manage(
            "status", "--store", deployment.store, code=2
        )
        next(iter(deployment.servers.values())).kill()
        manage("probe", code=5)


def test_hints_name_the_command_by_which_one_came(tmp_path: Path) -> None:
    """With the alias, if it is not the default one."""
    with start_shards(2) as servers:
        config = {"topology": (tmp_path / "topology.json").as_uri()}
        entry = {"BACKEND": OURS, "CONFIG": config}
        manage = Manage(tmp_path, {"default": entry, "other": entry})
        assert "`manage.py cluster init`" in manage("status", code=1)
        assert "`manage.py cluster --layer other init`" in manage("--layer=other", "status", code=1)
        manage("init", *(server.url for server in servers))
        said = json.loads(manage("--layer", "other", "check", "--json", code=6))
        (monitors,) = (one for one in said["findings"] if one["rule"] == "monitor.running")
        assert "`manage.py cluster --layer other monitor`" in monitors["remedy"]
        usage = manage("status", "--help", "--layer", "other")
        assert usage.startswith("Usage: manage.py cluster --layer other status")


def test_a_fixed_list_of_hosts_has_no_store(tmp_path: Path) -> None:
    """The verbs for messages do without; the others say what to change."""
    with start_shards(2) as servers:
        hosts = [server.url.replace("://", f"://user:{SECRET}@") for server in servers]
        plain = [server.url for server in servers]
        manage = Manage(
            tmp_path,
            {
                "default": {"BACKEND": OURS, "CONFIG": {"hosts": plain}},
                "login": {"BACKEND": OURS, "CONFIG": {"hosts": hosts}},
            },
        )
        manage("send", "jobs", '{"type": "x"}')
        assert json.loads(manage("receive", "jobs")) == {"type": "x"}
        manage("probe")
        said = manage("--layer", "login", "status", code=2)
        assert "CHANNEL_LAYERS['login']: CONFIG hosts is a fixed list" in said
        assert "CONFIG topology" in said
        assert SECRET not in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"BACKEND": "channels.layers.InMemoryChannelLayer"}, ["BACKEND", "InMemory", OURS]),
        ({"BACKEND": "no.such.Layer"}, ["BACKEND", "no.such.Layer", "can't be imported"]),
        ({"BACKEND": OURS, "CONFIG": {"topolgy": "x"}}, ["'topolgy'", "'topology'"]),
        ({"BACKEND": OURS, "CONFIG": {"topology": "mysql:"}}, ["topology", "mysql:", "zookeeper"]),
        ({"BACKEND": OURS, "CONFIG": {"topology": "mysql://h/x"}}, ["mysql", "zookeeper"]),
        ({"BACKEND": OURS, "CONFIG": {"topology": {"url": "file:///x", "no": 1}}}, ["no"]),
    ],
)
def test_wrong_settings(tmp_path: Path, entry: Mapping[str, Any], said: list[str]) -> None:
    """Exit code 2, and an answer that names the setting, the value and the remedy."""
    manage = Manage(tmp_path, {"default": entry})
    answer = manage("status", code=2)
    assert all(text in answer for text in said), answer
    assert "Traceback" not in answer
    missing = manage("--layer", "absent", "status", code=2)
    assert "CHANNEL_LAYERS has no 'absent', it has 'default'" in missing
