"""`status` and `locate` on real shards and stores, while a site runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cli.deployment import BINARIES, CLUSTER, Deployment, deployed
from tests.support.terminal import terminal
from tests.support.waiting import eventually, eventually_async
from tests.support.workers import Worker
from tests.support.zookeeper import ZooKeeperServer
from topology import transitions
from topology.codec import encode
from topology.decisions import Decisions
from topology.hashing import SLOTS, slot_of
from topology.model import Operator, Shard, Topology
from topology.planning import plan
from topology.stores import open_store

OPERATOR = Operator("ada", "ops-1", 4711)


@pytest.mark.parametrize("binary", BINARIES)
async def test_status_shows_shards_and_processes(tmp_path: Path, binary: str | None) -> None:
    """What each shard says of itself, and each process of itself."""
    with deployed(tmp_path, binary=binary) as deployment:
        async with deployment.receiver(prefix="site") as layer:
            found = await deployment.look("status")
    assert (found["cluster"], found["epoch"], found["phase"]) == (CLUSTER, 1, "steady")
    assert [shard["id"] for shard in found["shards"]] == ["a", "b"]
    for shard in found["shards"]:
        assert shard["reachable"]
        assert (shard["role"], shard["epoch"], shard["state"]) == ("master", 1, "up")
        assert shard["memory_bytes"] > 0
        assert shard["max_memory_bytes"] == 2**30
        assert shard["connections"] >= 1
        assert len(shard["incarnation"]) == 16
    assert sum(shard["slots"] for shard in found["shards"]) == SLOTS
    (process,) = found["processes"]
    assert process["id"] == layer.stats()["process"]
    assert (process["pid"], process["prefix"], process["lag"]) == (os.getpid(), "site", 0)
    assert (process["state"], process["held_by"]) == ("well", None)
    assert found["change"] is None
    assert [server["serves"] for server in found["store"]["servers"]] == [True]


async def test_status_is_a_table_for_people(tmp_path: Path) -> None:
    """With the same content; no password in it, nor in the JSON."""
    with deployed(tmp_path, users="default:pa55word@") as deployment:
        for shard in "ab":  # a password is set after the start, so that both are in the URL
            deployment.client(shard).config_set("requirepass", "pa55word")
        outputs = [
            await asyncio.to_thread(deployment.run, *arguments)
            for arguments in (["status"], ["status", "--json"], ["check"], ["check", "--json"])
        ]
    assert all("pa55word" not in one.output for one in outputs)
    table = outputs[0].stdout
    assert all(word in table for word in ("epoch 1", "50.0%", "primary", "1.07 GB", "processes"))
    assert outputs[0].exit_code == 0


async def test_a_shard_that_is_away_is_shown_as_such(tmp_path: Path) -> None:
    """With the reason; everything else is shown as before."""
    with deployed(tmp_path) as deployment:
        deployment.servers["b"].kill()
        found = await deployment.look("status", "--timeout", "5")
        table = await asyncio.to_thread(deployment.run, "status", "--timeout", "5")
    assert [shard["reachable"] for shard in found["shards"]] == [True, False]
    assert found["shards"][1]["reason"]
    assert "not reached" in table.stdout


async def test_asking_changes_nothing_on_a_shard(tmp_path: Path) -> None:
    """Blank shards get no key and no script; others keep what they have, byte for byte."""
    with deployed(tmp_path) as deployment:
        for command in ("status", "check"):
            await deployment.look(command)
        for shard in "ab":
            client = deployment.client(shard)
            assert client.dbsize() == 0
            assert client.info("memory")["number_of_cached_scripts"] == 0
        async with deployment.receiver() as layer:
            for number in range(20):
                await layer.send(f"queue-{number}", {"type": "x"})
        before = {shard: contents(deployment, shard) for shard in "ab"}
        assert sum(map(len, before.values())) > 20
        for command in ("status", "check"):
            await deployment.look(command)
        assert {shard: contents(deployment, shard) for shard in "ab"} == before


def contents(deployment: Deployment, shard: str) -> dict[bytes, bytes]:
    client = deployment.client(shard)
    return {key: client.dump(key) for key in client.scan_iter()}


async def test_status_tells_who_holds_a_change_up(tmp_path: Path) -> None:
    """The change, how far it is, and the stopped process that it waits for, with host and pid."""
    with deployed(tmp_path) as deployment:
        store = open_store(deployment.store)
        decisions = Decisions(store, OPERATOR)
        config = {"topology": deployment.store, "topology_cache": None}
        async with deployment.receiver(), Worker(config) as worker:
            await worker.call("join", "room")
            first = await eventually_async(lambda: processes_of(deployment, 2))
            (pid,) = {one["pid"] for one in first} - {os.getpid()}
            os.kill(pid, signal.SIGSTOP)
            try:
                topology = await decisions.read()
                wanted = [topology.shard("a"), Shard("b", topology.shard("b").url, weight=3)]
                await decisions.begin(plan(topology, wanted, "weight b 3"), step=256)
                prepared = await decisions.transit(await decisions.read(), transitions.prepare)
                await eventually_async(lambda: silent_in(deployment, pid))
                found = await deployment.look("status")
                table = await asyncio.to_thread(deployment.run, "status")
                places = await deployment.look("locate", moving_name(prepared), "x.abc!def")
            finally:
                os.kill(pid, signal.SIGCONT)
        store.close()
    change = found["change"]
    assert (change["summary"], change["operator"]) == ("weight b 3", "ada@ops-1, pid 4711")
    assert (change["slots"], change["slots_done"]) == (1024, 0)
    assert change["stage"] == "a round is prepared"
    assert [(hold["pid"], "silent" in hold["reason"]) for hold in change["holds"]] == [(pid, True)]
    (process,) = [one for one in found["processes"] if one["pid"] == pid]
    assert (process["state"], process["lag"]) == ("silent", prepared.epoch - 1)
    assert "weight b 3" in table.stdout
    assert f"pid {pid}" in table.stdout
    moving, other = places
    assert (moving["phase"], moving["shard"], moving["other"]["shard"]) == ("prepared", "a", "b")
    assert other["slot"] == slot_of("x.abc!")


async def processes_of(deployment: Deployment, count: int) -> list[dict[str, Any]]:
    found = (await deployment.look("status"))["processes"]
    return found if sum(one["receives"] for one in found) == count else []


async def silent_in(deployment: Deployment, pid: int) -> bool:
    holds = (await deployment.look("status"))["change"]["holds"]
    return [hold["pid"] for hold in holds if "silent" in hold["reason"]] == [pid]


def moving_name(topology: Topology) -> str:
    moving = set(topology.moving)
    return next(name for name in map(str, range(10_000)) if slot_of(name) in moving)


def test_locate_says_the_shard_of_an_inbox(tmp_path: Path) -> None:
    """A process-specific channel lives where its process's inbox does; a typo is wrong usage."""
    with deployed(tmp_path) as deployment:
        inbox = json.loads(deployment.run("locate", "specific.abc!", "--json").stdout)
        channel = json.loads(deployment.run("locate", "specific.abc!xyz", "--json").stdout)
        wrong = deployment.run("locate", "two words")
    assert inbox[0]["shard"] == channel[0]["shard"]
    assert channel[0]["other"] is None
    assert (wrong.exit_code, "two words" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("as_json", [True, False])
def test_watch_looks_again_until_it_is_interrupted(tmp_path: Path, as_json: bool) -> None:
    """Each look is told, also the one after a shard was lost; Ctrl-C is no error."""
    with deployed(tmp_path) as deployment:
        arguments = ["status", "--watch", "0.1", "--timeout", "5", "--store", deployment.store]
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("cluster-layer")), *arguments]
            + ["--json"] * as_json,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = process.stdout
        assert lines is not None
        if as_json:
            first = json.loads(lines.readline())
            assert [shard["reachable"] for shard in first["shards"]] == [True, True]
            deployment.servers["b"].kill()
            eventually(lambda: not json.loads(lines.readline())["shards"][1]["reachable"])
        else:
            eventually(lambda: "epoch 1" in lines.readline())
            deployment.servers["b"].kill()
            eventually(lambda: "not reached" in lines.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


async def test_watch_redraws_a_screen(tmp_path: Path) -> None:
    """In place, and the terminal is as before at the end."""
    with deployed(tmp_path) as deployment:
        arguments = ("status", "--watch", "0.1", "--timeout", "5")
        async with terminal(deployment.store, *arguments) as screen:
            await screen.shows("monitors: none")
            deployment.servers["b"].kill()
            await screen.shows("up, not reached")
            screen.process.send_signal(signal.SIGINT)
            assert await screen.ended() == 0
    assert "Traceback" not in screen.shown


async def test_status_with_zookeeper(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    """Each server of the ensemble is shown, and who leads the monitors."""
    url = f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}/topology"
    with deployed(tmp_path, store=url) as deployment:
        found = await deployment.look("status")
        table = await asyncio.to_thread(deployment.run, "status")
    (server,) = found["store"]["servers"]
    assert (server["address"], server["serves"]) == (zookeeper.hosts, True)
    assert server["role"] == "standalone"
    assert server["latency_s"] > 0
    assert zookeeper.hosts in table.stdout


async def test_status_without_zookeeper_shows_the_last_good_copy(tmp_path: Path) -> None:
    """Shards and processes can be looked at; that the store is away is told."""
    copy = tmp_path / "copy.json"
    with ZooKeeperServer() as server:
        url = f"zookeeper://{server.hosts}/topology"
        with deployed(tmp_path, store=url) as deployment:
            topology = open_store(url)
            copy.write_bytes(encoded(topology.read()))
            topology.close()
            server.kill()
            options = ["--topology-cache", str(copy), *short_store_options(tmp_path)]
            found = await deployment.look("status", *options)
            nothing = await asyncio.to_thread(
                deployment.run, "status", *options[2:], "--topology-cache", str(tmp_path / "none")
            )
    assert all(shard["reachable"] for shard in found["shards"])
    assert "copy of epoch 1" in found["store"]["trouble"]
    assert not found["store"]["servers"][0]["serves"]
    assert nothing.exit_code == 1


def encoded(topology: Topology | None) -> bytes:
    assert topology is not None
    return encode(topology)


def short_store_options(directory: Path) -> list[str]:
    """So that nobody waits for a server that is gone for long."""
    path = directory / "options.json"
    path.write_text(json.dumps({"timeout_s": 1.0}))
    return ["--store-options", str(path)]
