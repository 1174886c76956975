"""What a Django site gets: system checks, fixtures for its own tests, and types for its mypy."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from cluster_layer.embedded import RedisServer, free_port

ROOT = Path(__file__).parents[2]

Site = Callable[[object], subprocess.CompletedProcess[str]]


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program in a site's directory, as its developer would start it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(directory)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def checked(tmp_path: Path) -> Site:
    """Runs ``check --deploy --tag channels`` with these CHANNEL_LAYERS."""

    def check(layers: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / "site_settings.py").write_text(
            'SECRET_KEY = "x"\n'
            'INSTALLED_APPS = ["channels", "cluster_layer"]\n'
            f"CHANNEL_LAYERS = {layers!r}\n"
        )
        return run(tmp_path, "-m", "django", "check", "--deploy", "--tag", "channels")

    return check


def ours(**config: object) -> dict[str, object]:
    backend = "cluster_layer.ClusterChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": config}}


def ids_in(output: str) -> set[str]:
    return set(re.findall(r"cluster_layer\.[EW]\d+", output))


@pytest.fixture
def diskless() -> Iterator[RedisServer]:
    """A server that is set up as it should be."""
    with RedisServer() as server:
        client = redis.Redis.from_url(server.url)
        client.config_set("save", "")
        client.close()
        yield server


def test_a_site_that_is_well_has_no_complaints(checked: Site, diskless: RedisServer) -> None:
    """Settings right, shards reachable."""
    done = checked(ours(hosts=[diskless.url]))
    assert done.returncode == 0, done.stderr
    assert ids_in(done.stderr) == set(), done.stderr


def test_a_wrong_config_is_an_error_with_its_remedy(checked: Site) -> None:
    """`manage.py check` fails, and says what to change."""
    done = checked(ours(hosts=["redis://localhost:6379"], capactiy=5))
    assert done.returncode == 1
    assert "cluster_layer.E001" in done.stderr
    assert "did you mean 'capacity'" in done.stderr


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, "cluster_layer.W001"),
        ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, "cluster_layer.W001"),
        (ours(drop_rate=0.1), "cluster_layer.W002"),
        (ours(hosts=["redis://10.255.0.1:1"], connect_timeout=0.2), "cluster_layer.W003"),
        (ours(topology="file:///nowhere/topology.json"), "cluster_layer.W010"),
    ],
)
def test_what_is_doubtful_is_a_warning(checked: Site, layers: object, expected: str) -> None:
    """With a hint; the check does not fail for it."""
    done = checked(layers)
    assert done.returncode == 0, done.stderr
    assert expected in ids_in(done.stderr)
    assert "HINT" in done.stderr


def test_a_site_that_moves_is_looked_at_for_its_new_layer(checked: Site, tmp_path: Path) -> None:
    """Both layers of the move are one entry; the hint says how to create what is missing."""
    new = {"topology": (tmp_path / "none.json").as_uri()}
    entry = {
        "BACKEND": "cluster_layer.migrating.TwoLayers",
        "CONFIG": {"old": {}, "new": new, "write": "old"},
    }
    done = checked({"default": entry})
    assert ids_in(done.stderr) == {"cluster_layer.W010"}, done.stderr
    assert "`manage.py cluster init`" in done.stderr


def test_a_shard_that_is_not_there_is_a_warning(checked: Site, diskless: RedisServer) -> None:
    """It names the shard and what to look at, by what command; its password is not told."""
    port = free_port()
    url = f"redis://:secret-word@127.0.0.1:{port}"
    done = checked(ours(hosts=[diskless.url, url], timeout=0.5))
    assert done.returncode == 0
    assert ids_in(done.stderr) == {"cluster_layer.W011"}
    assert str(port) in done.stderr
    assert "is the server running" in done.stderr
    assert "`manage.py cluster check`" in done.stderr
    assert "secret-word" not in done.stderr


def test_a_shard_that_is_set_up_otherwise_is_a_warning(
    checked: Site, redis_server: RedisServer
) -> None:
    """One that writes to disk, and one that may evict what waits."""
    client = redis.Redis.from_url(redis_server.url)
    client.config_set("save", "3600 1")
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.close()
    done = checked(ours(hosts=[redis_server.url]))
    assert done.returncode == 0
    assert ids_in(done.stderr) == {"cluster_layer.W013", "cluster_layer.W014"}
    assert "allkeys-lru" in done.stderr


# -- a site's own tests

CONSUMER = """
from channels.generic.websocket import AsyncJsonWebsocketConsumer


class Room(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def receive_json(self, content):
        await self.channel_layer.group_send("room", {"type": "said", "text": content["text"]})

    async def said(self, event):
        await self.send_json({"text": event["text"]})
"""

USERS_TESTS = """
import asyncio

import pytest
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator

from cluster_layer import ClusterChannelLayer
from cluster_layer.testing import memory_topology, start_shards
from room import Room


@pytest.mark.asyncio
async def test_everybody_hears(cluster_layer):
    assert get_channel_layer() is cluster_layer
    people = [WebsocketCommunicator(Room.as_asgi(), "/") for _ in range(3)]
    for person in people:
        assert (await person.connect(timeout=20))[0]
    assert await cluster_layer.group_count("room") == 3
    await people[0].send_json_to({"text": "hello"})
    for person in people:
        assert await person.receive_json_from(timeout=20) == {"text": "hello"}
        await person.disconnect()


@pytest.mark.asyncio
async def test_nothing_is_left_of_other_tests(cluster_layer):
    assert await cluster_layer.group_count("room") == 0


def test_sync_code(cluster_layer):
    from asgiref.sync import async_to_sync

    async_to_sync(cluster_layer.send)("orders", {"type": "x"})
    assert async_to_sync(cluster_layer.receive)("orders") == {"type": "x"}


@pytest.mark.asyncio
async def test_a_topology_in_memory():
    with start_shards(2) as servers:
        layer = ClusterChannelLayer(topology=memory_topology(servers))
        await layer.send("orders", {"type": "x"})
        assert await layer.receive("orders") == {"type": "x"}
        assert set(layer.stats()["shards"]) == {"shard0", "shard1"}
        await layer.close()
"""


def test_a_sites_own_tests_get_a_layer_on_real_servers(tmp_path: Path) -> None:
    """With two lines in conftest.py: consumers, sync code, a topology in memory."""
    (tmp_path / "site_settings.py").write_text(
        'SECRET_KEY = "x"\nINSTALLED_APPS = ["channels"]\nCHANNEL_LAYERS = {}\n'
    )
    (tmp_path / "room.py").write_text(CONSUMER)
    (tmp_path / "conftest.py").write_text(
        'import django\n\ndjango.setup()\npytest_plugins = ["cluster_layer.testing"]\n'
    )
    (tmp_path / "test_room.py").write_text(USERS_TESTS)
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


# -- a site's mypy

WELL_TYPED = """
from cluster_layer import (
    ChannelFull, ClusterChannelLayer, ClusterError, DeliveryUnknown, Gap, GapReason,
)
from cluster_layer.health import Health


def on_gap(gap: Gap) -> None:
    if gap.reason is GapReason.OVERFLOW:
        print(gap.names, gap.missed)


async def use(layer: ClusterChannelLayer) -> int:
    channel: str = await layer.new_channel()
    await layer.group_add("room", channel)
    try:
        await layer.send(channel, {"type": "x", "n": 1}, expiry=2.5, confirm=False)
        await layer.group_send("room", {"type": "x"}, exclude=[channel])
    except (ChannelFull, DeliveryUnknown) as error:
        print(error.definite)
    outcomes: list[ClusterError | None] = await layer.send_many([("orders", {"type": "x"})])
    message: dict[str, object] = await layer.receive(channel)
    members: frozenset[str] = await layer.group_channels("room")
    health: Health = await layer.health()
    print(outcomes, message, members, health.ok, layer.stats()["lost"])
    return await layer.group_count("room")
"""

BADLY_TYPED = """
from cluster_layer import ClusterChannelLayer


async def use(layer: ClusterChannelLayer) -> None:
    await layer.send(5, {"type": "x"})
    await layer.group_send("room", "hello")
    count: str = await layer.group_count("room")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the packages are installed, not linked."""
    environment = tmp_path_factory.mktemp("installed")
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    for package in ("cluster_layer", "topology"):
        shutil.copytree(ROOT / package, packages / package)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "python"


def mypy(tmp_path: Path, python: Path, program: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "user.py").write_text(program)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    options = ("--strict", f"--python-executable={python}", cache)
    return run(tmp_path, "-m", "mypy", *options, "user.py")


def test_a_users_program_passes_mypy(tmp_path: Path, installed: Path) -> None:
    """In strict mode, without any setting of its own."""
    done = mypy(tmp_path, installed, WELL_TYPED)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_users_mistakes_are_found_by_mypy(tmp_path: Path, installed: Path) -> None:
    """A wrong name, message and result: three errors."""
    done = mypy(tmp_path, installed, BADLY_TYPED)
    assert done.returncode == 1
    lines = [int(number) for number in re.findall(r"user\.py:(\d+): error", done.stdout)]
    assert lines == [6, 7, 8], done.stdout
