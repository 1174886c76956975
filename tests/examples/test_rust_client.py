"""The client in Rust, written from docs/wire-format.md, and this layer understand each other.

It is built with cargo, offline but for its crates; without cargo or crates the tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.environments.clock import ClockedRedis
from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer, start_shards
from tests.support.changes import changes_of
from tests.support.layers import (
    DEADLINE_S,
    names_on_all_shards,
    new_channel_on,
    numbered,
    only_end_comes,
    receive,
    topology_file,
    unique_prefix,
)
from tests.support.waiting import eventually_async
from topology.codec import decode, encode
from topology.hashing import slot_of
from topology.model import Shard, Topology
from topology.planning import initial_topology, plan

CRATE = Path(__file__).parents[2] / "examples" / "rust-client"
BUILD_S = 300
FLOW, FLOW_S, PAUSE_S = 400, 100, 0.005

pytestmark = pytest.mark.timeout(BUILD_S + 120)


def _cargo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cargo", *arguments],  # noqa: S607 - found on the PATH, as its users find it
        cwd=CRATE,
        env={**os.environ, "CARGO_NET_RETRY": "1", "CARGO_HTTP_TIMEOUT": "20"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )


@pytest.fixture(scope="module")
def program() -> Path:
    """The client, built."""
    if shutil.which("cargo") is None:
        pytest.skip("needs cargo (rustup.rs, or the package cargo), which is not installed")
    needed = tomllib.loads((CRATE / "Cargo.toml").read_text("utf-8"))["package"]["rust-version"]
    told = _cargo("--version")
    if told.returncode:
        pytest.skip(f"cargo does not work here: {told.stderr.strip()[-300:]}")
    found = told.stdout.split()[1]
    if _numbers(found) < _numbers(needed):
        pytest.skip(f"needs cargo {needed} or newer, this is {found}")
    fetched = _cargo("fetch", "--locked")
    if fetched.returncode:
        assert "--locked" not in fetched.stderr, f"Cargo.lock is not up to date: {fetched.stderr}"
        pytest.skip(f"the crates can't be had here: {fetched.stderr.strip()[-300:]}")
    began = time.monotonic()
    built = _cargo("build", "--locked", "--offline")
    assert built.returncode == 0, built.stderr
    print(f"built in {time.monotonic() - began:.1f} s")
    return CRATE / "target" / "debug" / "rust-client"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.partition("-")[0].split(".")]


class Client:
    """The program, with what it needs to find the shards and to meet the layer."""

    def __init__(self, program: Path, *place: str, prefix: str) -> None:
        self._words = [str(program), *place, "--prefix", prefix]

    async def __call__(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """The lines of a run that must end with this exit code."""
        async with self.running(*arguments) as process, asyncio.timeout(DEADLINE_S):
            said, errors = await process.communicate()
        assert process.returncode == code, (process.returncode, said, errors)
        return [json.loads(line) for line in said.splitlines()]

    async def refusal(self, *arguments: str, code: int) -> str:
        """What a run says on the standard error that must end with this exit code."""
        async with self.running(*arguments) as process, asyncio.timeout(DEADLINE_S):
            _, errors = await process.communicate()
        assert process.returncode == code, errors
        return errors.decode()

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def tell(process: asyncio.subprocess.Process, message: dict[str, Any]) -> dict[str, Any]:
    """Have a program send one more message; what became of it."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    return await answer(process)


async def answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line that a program says."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
    found: dict[str, Any] = json.loads(line)
    return found


class Cluster:
    """Three shards with a topology in a file, a layer that uses them, and the client."""

    def __init__(self, program: Path, directory: Path, servers: dict[str, RedisServer]) -> None:
        self.program = program
        self.servers = servers
        self.prefix = unique_prefix()
        self.file = directory / "topology.json"
        self.store = topology_file(self.file, servers)
        self.layer = ClusterChannelLayer(
            topology=self.store, topology_cache=None, prefix=self.prefix, capacity=1000
        )

    def topology(self) -> Topology:
        return decoded(self.file)

    async def moving_to(self, shard: str, wanted: list[Shard]) -> tuple[str, str, str]:
        """A normal channel and a group that a change moves there, and a channel of the layer."""
        slots = {m.slot for m in plan(self.topology(), wanted).moves if m.target == shard}
        found = [n for n in (f"name-{i}" for i in range(9999)) if slot_of(n) in slots]
        channel = next(n for n in found if slot_of(f"{n}.back") in slots)
        return channel, found[-1], await self.layer.new_channel()

    def by_copy(self) -> Client:
        """The client, which knows the topology from the copies on the shards."""
        urls = ",".join(server.url for server in self.servers.values())
        place = ("--shard", urls, "--cluster", self.topology().cluster)
        return Client(self.program, *place, prefix=self.prefix)

    def by_file(self, file: Path | None = None) -> Client:
        """The client, with what is in a file now."""
        return Client(self.program, "--topology", str(file or self.file), prefix=self.prefix)

    def kept(self) -> Path:
        """A copy of the topology as it is now."""
        kept = self.file.with_name(f"epoch-{self.topology().epoch}.json")
        kept.write_bytes(self.file.read_bytes())
        return kept


@pytest.fixture
async def cluster(program: Path, tmp_path: Path) -> AsyncIterator[Cluster]:
    with start_shards(3) as servers:
        made = Cluster(program, tmp_path, dict(zip("abc", servers, strict=True)))
        try:
            yield made
        finally:
            await made.layer.close()


def test_it_agrees_with_the_golden_vectors(program: Path) -> None:
    """Its own tests: hashes, homes, envelopes, bodies, and what must be refused."""
    tested = _cargo("test", "--locked", "--offline")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "0 failed" in tested.stdout
    assert "ok. 0 passed" not in tested.stdout


async def test_it_finds_the_same_homes(cluster: Cluster) -> None:
    """By the copy that the layer has brought to the shards."""
    channel = await cluster.layer.new_channel()
    names = [channel, *(f"room.{number}" for number in range(50))]
    expected = [await cluster.layer.locate(name) for name in names]
    await cluster.layer.send("x", numbered(0))
    await eventually_async(lambda: all(cluster.layer.stats()["shards"]))
    places = await cluster.by_file()("locate", *names)
    assert [place["shard"] for place in places] == expected
    assert await cluster.by_copy()("locate", *names) == places


async def test_messages_go_both_ways_by_every_shard(cluster: Cluster) -> None:
    """To process-specific and normal channels, and from normal ones, with every type in them."""
    layer, client = cluster.layer, cluster.by_file()
    sent = {"type": "x", "n": -(2**63), "f": 0.5, "text": "é中😀", "more": [None, True, {"a": []}]}
    as_sent = {**sent, "raw": {"$bytes": "AP8="}}
    message = {**sent, "raw": b"\x00\xff"}
    for channel in await names_on_all_shards(layer, "orders"):
        specific = await new_channel_on(layer, await layer.locate(channel))
        for name in (channel, specific):
            (told,) = await client("send", name, json.dumps(as_sent))
            assert told["shard"] == await layer.locate(channel)
            assert await receive(layer, name) == message
        await layer.send(channel, message)
        await layer.send(channel, numbered(2))
        assert await client("receive", channel, "--count", "2") == [as_sent, numbered(2)]
        assert await client("receive", channel, "--timeout", "0.2", code=7) == []


async def test_groups_reach_members_of_both_kinds(cluster: Cluster) -> None:
    """Who is subscribed, and normal channels that anybody has added; not who is excluded."""
    layer, client = cluster.layer, cluster.by_file()
    for group in await names_on_all_shards(layer, "room"):
        inside, outside = await layer.new_channel(), await layer.new_channel()
        await layer.group_add(group, inside)
        await layer.group_add(group, outside)
        await layer.group_add(group, f"theirs.{group}")
        await client("group-add", group, f"ours.{group}")
        words = ("group-send", group, json.dumps(numbered(1)), "--exclude", outside)
        (told,) = await client(*words)
        assert sorted(told["members"]) == [f"ours.{group}", f"theirs.{group}"]
        assert await receive(layer, inside) == numbered(1)
        assert await only_end_comes(layer, outside)
        await layer.group_send(group, numbered(2))
        for name in (f"ours.{group}", f"theirs.{group}"):
            assert await client("receive", name, "--count", "2") == [numbered(1), numbered(2)]
        await client("group-discard", group, f"ours.{group}")
        await layer.group_send(group, numbered(3))
        assert await client("receive", f"theirs.{group}") == [numbered(3)]
        assert await client("receive", f"ours.{group}", "--timeout", "0.2", code=7) == []


async def test_shards_that_know_no_topology_are_told(cluster: Cluster) -> None:
    """AHEAD and NOSCRIPT, also when they are emptied in the middle of a run."""
    async with cluster.by_file().running("send", "jobs", "-") as process:
        first = await tell(process, numbered(1))
        assert await receive(cluster.layer, "jobs") == numbered(1)
        with redis.Redis.from_url(cluster.servers[first["shard"]].url, protocol=2) as server:
            server.flushall()
            server.script_flush()
        assert await tell(process, numbered(2)) == first
    assert await receive(cluster.layer, "jobs") == numbered(2)
    assert (await cluster.by_copy()("locate", "jobs"))[0]["epoch"] == first["epoch"]


async def test_a_blank_shard_is_told_of_nothing_old(program: Path, tmp_path: Path) -> None:
    """AHEAD of a shard that has begun anew, with an old topology: the others are asked."""
    with start_shards(3) as servers:
        shards = [Shard(i, server.url) for i, server in zip("abc", servers, strict=True)]
        old = initial_topology(shards, cluster="0" * 16)
        wanted = [replace(shards[0], weight=0.1), *shards[1:]]
        new = replace(initial_topology(wanted, cluster="0" * 16), epoch=2)
        prefix = unique_prefix()
        clients = []
        for topology in (old, new):
            file = tmp_path / f"{topology.epoch}.json"
            file.write_bytes(encode(topology))
            clients.append(Client(program, "--topology", str(file), prefix=prefix))
        name = next(
            n
            for n in map(str, range(9999))
            if (old.shard_of(n).id, new.shard_of(n).id) == ("a", "b")
        )
        message = json.dumps(numbered(1))
        (by_new,) = await clients[1]("send", name, message)
        (by_old,) = await clients[0]("send", name, message)
        assert by_new == {"name": name, "shard": "b", "epoch": 2, "redirections": 0}
        assert by_old == {**by_new, "redirections": 1}
        assert await clients[1]("receive", name, "--count", "2") == [numbered(1)] * 2


def test_the_readme_names_every_verb(program: Path) -> None:
    """And no other one."""
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    verbs = re.findall(
        r"^  ([a-z-]+) ", said.partition("Commands:")[2].partition("Options:")[0], re.M
    )
    table = (CRATE / "README.md").read_text("utf-8").partition("| verb |")[2].partition("\n\n")[0]
    assert set(verbs) - {"help"} == set(re.findall(r"`([a-z][a-z-]*) [A-Z]", table))


async def test_a_full_channel_and_lost_shards_are_refusals(cluster: Cluster) -> None:
    """Exit code 1: it provably did not happen."""
    client = cluster.by_file()
    words = ("send", "jobs", json.dumps(numbered(1)), "--capacity", "2")
    for _ in range(2):
        await client(*words)
    assert "full" in await client.refusal(*words, code=1)
    assert [await receive(cluster.layer, "jobs") for _ in range(2)] == [numbered(1)] * 2
    for server in cluster.servers.values():
        server.kill()
    assert "nothing was executed" in await client.refusal(*words, code=1)
    for wrong in (("send", "no name", "{}"), ("send", "x", "[]"), ("send", "x", "{"), ("nothing",)):
        await client.refusal(*wrong, code=2)


async def test_what_was_not_answered_never_happens_later(cluster: Cluster) -> None:
    """Exit code 3 when the fence has passed; the shard, which goes on then, refuses the write."""
    client = cluster.by_file()
    async with client.running("--shard-timeout", "1", "send", "jobs", "-") as process:
        shard = (await tell(process, numbered(1)))["shard"]
        cluster.servers[shard].pause()
        assert process.stdin is not None
        process.stdin.write(json.dumps(numbered(2)).encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 3
        cluster.servers[shard].resume()
    assert await receive(cluster.layer, "jobs") == numbered(1)
    assert await only_end_comes(cluster.layer, "jobs")


async def test_a_url_may_name_its_secret(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the layer; without it, the error says which one, and nothing was sent."""
    with RedisServer(password="p@ss/word") as server:
        url = f"redis://:{{env:SHARD_PASSWORD}}@127.0.0.1:{server.port}"
        file = tmp_path / "topology.json"
        file.write_bytes(encode(initial_topology([Shard("a", url)], cluster="0" * 16)))
        client = Client(program, "--topology", str(file), prefix=unique_prefix())
        said = await client.refusal("send", "jobs", "{}", code=2)
        assert "{env:SHARD_PASSWORD}" in said
        monkeypatch.setenv("SHARD_PASSWORD", "p@ss/word")
        await client("send", "jobs", json.dumps(numbered(1)))
        assert await client("receive", "jobs") == [numbered(1)]


async def test_a_shard_s_clock_may_jump(program: Path, tmp_path: Path) -> None:
    """LATE: its time is asked for again, and the message goes the second time."""
    with ClockedRedis({}) as server:
        file = tmp_path / "topology.json"
        topology_file(file, {"a": server})
        client = Client(program, "--topology", str(file), prefix=unique_prefix())
        async with client.running("send", "jobs", "-") as process:
            await tell(process, numbered(1))
            server.set_clock(3600.0)
            await tell(process, numbered(2))
        # The first is too old by now, by the shard's clock.
        assert await client("receive", "jobs") == [numbered(2)]


async def test_a_change_makes_it_stale_and_it_follows(cluster: Cluster) -> None:
    """Refused once by a shard that serves a newer topology, and then right, in every verb."""
    layer, before = cluster.layer, cluster.kept()
    with RedisServer() as fourth:
        wanted = [*cluster.topology().shards, Shard("d", fourth.url)]
        channel, group, specific = await cluster.moving_to("d", wanted)
        await layer.group_add(group, specific)
        client = cluster.by_file(before)
        async with client.running("send", channel, "-") as sender:
            first = await tell(sender, numbered(1))
            async with changes_of(cluster.store) as changes:
                after = await changes.to(wanted)
            second = await tell(sender, numbered(2))
        assert (first["epoch"], first["redirections"]) == (1, 0)
        assert second == {
            "name": channel, "shard": "d", "epoch": after.epoch, "redirections": 1,
        }  # fmt: skip
        assert [await receive(layer, channel) for _ in range(2)] == [numbered(1), numbered(2)]
        (told,) = await client("group-send", group, json.dumps(numbered(3)))
        assert (told["shard"], told["redirections"]) == ("d", 1)
        (told,) = await client("send", specific, json.dumps(numbered(4)))
        assert (told["shard"], told["redirections"]) == (after.shard_of(specific).id, 1)
        assert [await receive(layer, specific) for _ in range(2)] == [numbered(3), numbered(4)]
        await client("group-add", group, "theirs")
        await layer.group_send(group, numbered(5))
        # An old file says where the home was; the shard there, or any other, says where it is.
        assert await client("receive", "theirs") == [numbered(5)]
        async with changes_of(cluster.store) as changes:
            await changes.to(wanted[1:])
        cluster.servers[wanted[0].id].kill()
        gone = next(n for n in map(str, range(999)) if decoded(before).shard_of(n) == wanted[0])
        (told,) = await client("send", gone, json.dumps(numbered(6)))
        assert (told["shard"], told["redirections"]) == (await layer.locate(gone), 1)
        assert await receive(layer, gone) == numbered(6)


async def test_messages_flow_while_a_change_is_under_way(cluster: Cluster) -> None:
    """From the client and to it, on names that move: each once, none lost."""
    layer = cluster.layer
    with RedisServer() as fourth:
        wanted = [*cluster.topology().shards, Shard("d", fourth.url)]
        channel, group, specific = await cluster.moving_to("d", wanted)
        await layer.group_add(group, specific)  # from now on a change waits for this layer
        client = cluster.by_file(cluster.kept())
        numbers, changed = list(range(FLOW)), asyncio.Event()
        async with (
            client.running("send", channel, "-", "--capacity", "1000") as sender,
            client.running("receive", f"{channel}.back", "--count", str(FLOW)) as reader,
            changes_of(cluster.store) as changes,
        ):

            async def send_there() -> list[dict[str, Any]]:
                return [await tell(sender, numbered(n)) async for n in _through(numbers, changed)]

            async def send_back() -> None:
                async for number in _through(numbers, changed):
                    await layer.send(f"{channel}.back", numbered(number))

            async def change() -> None:
                await changes.to(wanted, step=128)
                changed.set()

            async with asyncio.timeout(FLOW_S):
                told, _, _, there, back = await asyncio.gather(
                    send_there(), send_back(), change(),
                    _all([lambda: receive(layer, channel)] * FLOW),
                    _all([lambda: answer(reader)] * FLOW),
                )  # fmt: skip
        assert {one["shard"] for one in told} > {"d"}
        assert sum(one["redirections"] for one in told) > 0
        assert sorted(message["n"] for message in there) == numbers
        assert sorted(message["n"] for message in back) == numbers


async def _through(numbers: Sequence[int], changed: asyncio.Event) -> AsyncIterator[int]:
    """The first ones until an event is there, as slowly as it takes; the last ten after it."""
    for number in numbers[:-10]:
        yield number
        if not changed.is_set():
            await asyncio.sleep(PAUSE_S)
    await changed.wait()
    for number in numbers[-10:]:
        yield number


async def _all(calls: Sequence[Callable[[], Awaitable[dict[str, Any]]]]) -> list[dict[str, Any]]:
    return [await call() for call in calls]


def decoded(file: Path) -> Topology:
    return decode(file.read_bytes())
