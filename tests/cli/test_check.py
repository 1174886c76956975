"""`check`: each of its findings, provoked on real servers; and nothing to complain of when all is
well."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl

from tests.cli.deployment import (
    BINARIES,
    Deployment,
    deployed,
    findings_of,
    problems_of,
    text_of,
    use,
)
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually_async
from tests.support.workers import Worker
from tests.support.zookeeper import ZooKeeperServer
from topology import transitions
from topology.decisions import Decisions
from topology.hashing import SLOTS
from topology.model import Operator, Shard, ShardState, SlotTable, Topology
from topology.planning import initial_topology, plan
from topology.stores import open_store

#: What the documentation says that a user needs.
DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
NEEDED = " ".join(re.findall(r"^```acl\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)).split()


@contextmanager
def monitors(deployment: Deployment, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`cluster-layer monitor`, as operators run it."""
    command = [str(Path(sys.executable).with_name("cluster-layer")), "monitor"]
    command += ["--store", deployment.store]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=30)


async def rule_of(deployment: Deployment, rule: str, *options: str) -> list[tuple[str, str]]:
    return findings_of(await deployment.look("check", *options), rule)


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_deployment_without_faults_has_no_findings(
    tmp_path: Path, binary: str | None, zookeeper: ZooKeeperServer
) -> None:
    """Nothing worse than a note, exit code 0; every rule says that it has looked."""
    url = f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}/topology"
    with deployed(tmp_path, binary=binary, store=url) as deployment, monitors(deployment, 2):
        async with deployment.receiver():

            async def well() -> Any:
                result = await asyncio.to_thread(deployment.run, "check", "--json")
                found = json.loads(result.stdout)["findings"]
                notes = {one["rule"] for one in found if one["severity"] == "note"}
                # One server, and no login.
                as_it_should = notes == {"store.quorum", "store.access"}
                return result if as_it_should and result.exit_code == 0 else None

            found = json.loads((await eventually_async(well)).stdout)
    assert {one["severity"] for one in found["findings"]} == {"ok", "note"}
    rules = {one["rule"] for one in found["findings"] if one["severity"] == "ok"}
    assert rules >= {
        *("store.reachable", "store.access", "shard.reachable", "shard.version", "shard.memory"),
        *("shard.eviction", "shard.persistence", "shard.replicas", "shard.permissions"),
        *("shard.connections", "shard.clock", "shard.leftovers", "topology.size", "epoch.shards"),
        *("process.well", "process.version", "process.reaches", "monitor.running"),
        *("topology.balance", "change"),
    }


async def test_settings_of_a_shard_that_do_harm(tmp_path: Path) -> None:
    """Eviction, persistence, no limit of memory, one that is nearly used up, and few connections:
    the shard is named, and so is the remedy."""
    options = (
        {"maxmemory-policy": "allkeys-lru"},
        {"save": "900 1", "appendonly": "yes", "maxmemory": 0},
        {"maxclients": 10},
        {"maxmemory": 0, "maxmemory-policy": "volatile-ttl"},
    )
    with deployed(tmp_path, options=options) as deployment:
        used = deployment.client("c").info("memory")["used_memory"]
        deployment.client("c").config_set("maxmemory", int(used * 1.2))
        clients = [deployment.client("c") for _ in range(8)]
        for client in clients:
            client.ping()
        found = await deployment.look("check")
        exit_code = (await asyncio.to_thread(deployment.run, "check")).exit_code
        for client in clients:
            client.close()
    assert findings_of(found, "shard.eviction") == [("problem", "a"), ("warning", "d")]
    assert "noeviction" in text_of(found, "shard.eviction")
    assert findings_of(found, "shard.persistence") == [("warning", "b")]
    assert "rdb, aof" in text_of(found, "shard.persistence")
    assert findings_of(found, "shard.memory") == [("warning", "c"), ("note", "shards")]
    assert "b, d" in text_of(found, "shard.memory")
    assert findings_of(found, "shard.connections") == [("warning", "c")]
    assert (found["worst"], exit_code) == ("problem", 5)


async def test_a_shard_that_does_not_answer(tmp_path: Path) -> None:
    """Stopped or gone, it is a problem; the others are looked at all the same."""
    with deployed(tmp_path, options=({}, {}, {})) as deployment:
        deployment.servers["a"].kill()
        deployment.servers["b"].pause()
        try:
            found = await deployment.look("check", "--timeout", "4")
        finally:
            deployment.servers["b"].resume()
    assert problems_of(found, "shard.reachable") == ["a", "b"]
    assert findings_of(found, "shard.persistence") == [("ok", "shards")]


async def test_a_wrong_password(tmp_path: Path) -> None:
    """Told from a shard that is away, without the password."""
    with deployed(tmp_path, users="default:pa55word@") as deployment:
        deployment.client("b").config_set("requirepass", "another")
        found = await deployment.look("check")
    assert ("problem", "b") in findings_of(found, "shard.reachable")
    assert "password" in text_of(found, "shard.reachable")
    assert "pa55word" not in json.dumps(found)


async def test_servers_that_are_no_shards(tmp_path: Path) -> None:
    """A node of Redis Cluster, a replica, and one server under two names."""
    with deployed(tmp_path, options=({"cluster-enabled": "yes"}, {}, {})) as deployment:
        deployment.client("c").replicaof("127.0.0.1", deployment.servers["b"].port)
        store = open_store(deployment.store)
        before = store.read()
        assert before is not None
        found = await deployment.look("check")
        assert findings_of(found, "shard.mode") == [("problem", "a")]
        assert ("problem", "c") in findings_of(found, "shard.reachable")

        async def replica_is_seen() -> bool:
            return await rule_of(deployment, "shard.replicas") == [("note", "b")]

        await eventually_async(replica_is_seen)
        store.close()


async def test_one_server_under_two_names(tmp_path: Path) -> None:
    """Two shards that are lost together."""
    with deployed(tmp_path, options=({},)) as deployment:
        server = deployment.servers["a"]
        write(deployment, lambda now: with_shards(now, {"a": server.url, "b": f"{server.url}/1"}))
        found = await deployment.look("check")
    assert findings_of(found, "shard.alone") == [("warning", "a")]


def with_shards(topology: Topology, urls: dict[str, str]) -> Topology:
    shards = [Shard(name, url) for name, url in urls.items()]
    return replace(
        initial_topology(shards, cluster=topology.cluster),
        epoch=topology.epoch + 1,
    )


def write(deployment: Deployment, change: Any) -> Topology:
    """Replace what is in the store."""
    store = open_store(deployment.store)
    before = store.read()
    assert before is not None
    after: Topology = change(before)
    store.write(after, expected_epoch=before.epoch)
    store.close()
    return after


@pytest.mark.parametrize("binary", BINARIES)
async def test_the_documented_permissions_are_enough(tmp_path: Path, binary: str | None) -> None:
    """A site and a planned change run with them, and check has nothing to say."""
    with deployed(tmp_path, binary=binary, users="layer:pa55word@") as deployment:
        for shard in "ab":
            allow(deployment, shard, NEEDED)
        async with deployment.receiver() as layer:
            await use(layer)
            moved = await asyncio.to_thread(changed, deployment, "shard", "weight", "b", "3")
            assert moved.returncode == 0, moved.stderr
            await use(layer)
            found = await deployment.look("check")
        found_without = []
        for shard in "ab":
            found_without += deployment.client(shard).acl_log()
    assert findings_of(found, "shard.permissions") == [("ok", "shards")]
    # All else would be a command that the list lacks.
    refused = {entry["object"] for entry in found_without}
    assert refused <= {"client", "client|setinfo"}, refused  # which redis-py tries, and can miss


def allow(deployment: Deployment, shard: str, rules: list[str]) -> None:
    client = deployment.client(shard)
    client.execute_command("ACL", "SETUSER", "layer", "reset", "on", ">pa55word", *rules)


def changed(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A changing command, which wants a main thread of its own."""
    program = str(Path(sys.executable).with_name("cluster-layer"))
    return subprocess.run(
        [program, *arguments, "--yes", "--store", deployment.store],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("binary", BINARIES)
async def test_each_missing_permission_is_named(tmp_path: Path, binary: str | None) -> None:
    """Commands by who needs them, keys and channels by their patterns; nothing is executed."""
    with deployed(tmp_path, binary=binary, users="layer:pa55word@") as deployment:
        without = [rule for rule in NEEDED if rule not in ("+xadd", "+subscribe", "+rpop")]
        allow(deployment, "a", without)
        allow(deployment, "b", [*NEEDED, "resetkeys", "~asgi:*", "resetchannels", "&asgi:*"])
        found = await deployment.look("check", "--prefix", "other")
        severities = findings_of(found, "shard.permissions")
        text = text_of(found, "shard.permissions")
        keys = [deployment.client(shard).dbsize() for shard in "ab"]
        allow(deployment, "a", [*NEEDED, "-multi"])
        closed = await deployment.look("check")
    # a: commands, keys and channels; b: keys and channels; a: what operators need.
    assert severities == [("problem", "a")] * 3 + [("problem", "b")] * 2 + [("warning", "a")]
    assert "+xadd +subscribe" in text
    assert "ACL SETUSER ... +rpop" in text
    assert "~cluster-layer:* ~other:*" in text
    assert "&cluster-layer:* &other:*" in text
    assert keys == [0, 0]
    assert ("note", "a") in findings_of(closed, "shard.permissions")


async def test_a_user_who_may_hardly_do_anything(tmp_path: Path) -> None:
    """Even INFO is forbidden: it is told what to allow, and nothing raises."""
    with deployed(tmp_path, users="layer:pa55word@") as deployment:
        allow(deployment, "a", NEEDED)
        allow(deployment, "b", ["+ping", "~*"])
        found = await deployment.look("check")
        status = await asyncio.to_thread(deployment.run, "status")
    assert problems_of(found, "shard.reachable") == ["b"]
    assert "+info" in text_of(found, "shard.reachable")
    assert status.exit_code == 0


async def test_a_stopped_process(tmp_path: Path) -> None:
    """Where it is, and since when it is silent; its epoch, when that has moved on."""
    config: dict[str, Any] = {"topology_cache": None}
    with deployed(tmp_path) as deployment:
        async with Worker({"topology": deployment.store, **config}) as worker:
            await worker.call("join", "room")
            (process,) = await eventually_async(lambda: receivers(deployment))
            os.kill(process["pid"], signal.SIGSTOP)
            try:
                where = f"{process['host']}/{process['pid']}"
                wanted = [("warning", where)]

                async def is_seen() -> bool:
                    return await rule_of(deployment, "process.well") == wanted

                await eventually_async(is_seen)
                found = await deployment.look("check")
            finally:
                os.kill(process["pid"], signal.SIGCONT)
    assert "silent" in text_of(found, "process.well")


async def receivers(deployment: Deployment) -> list[dict[str, Any]]:
    found = (await deployment.look("status"))["processes"]
    return [one for one in found if one["receives"]]


async def test_a_process_that_cannot_reach_a_shard(tmp_path: Path) -> None:
    """Told from one that nobody reaches: this command does."""
    with deployed(tmp_path) as deployment:
        server = deployment.servers["b"]
        with TcpProxy("127.0.0.1", server.port) as proxy:
            async with deployment.receiver(addresses={"b": proxy.url}), deployment.receiver():
                proxy.refuse()
                proxy.cut()
                wanted = [("warning", "b")]

                async def is_seen() -> bool:
                    return await rule_of(deployment, "process.reaches") == wanted

                await eventually_async(is_seen)
                found = await deployment.look("check")
    assert "1 of 2" in text_of(found, "process.reaches")
    assert problems_of(found, "shard.reachable") == []


async def test_epochs_that_do_not_agree(tmp_path: Path) -> None:
    """A shard that nobody has told; a store that was set back behind what shards serve."""
    with deployed(tmp_path) as deployment:
        assert await rule_of(deployment, "epoch.shards") == [("note", "shards")]
        async with deployment.receiver():
            old = copy_of_store(deployment)
            after = write(deployment, lambda now: transitions.rehome(now, ["b"], "for the test"))

            async def has_come() -> bool:
                found = await deployment.look("status")
                return bool(found["shards"][0]["epoch"] == after.epoch)

            await eventually_async(has_come)
        marked = await deployment.look("check")
        set_store_back(deployment, old)
        found = await deployment.look("check")
    assert findings_of(marked, "shard.down") == [("warning", "b")]
    assert ("problem", "a") in findings_of(found, "epoch.shards")
    assert "set back" in text_of(found, "epoch.shards")


def copy_of_store(deployment: Deployment) -> bytes:
    return Path(deployment.store.removeprefix("file://")).read_bytes()


def set_store_back(deployment: Deployment, data: bytes) -> None:
    Path(deployment.store.removeprefix("file://")).write_bytes(data)


async def test_slots_that_do_not_follow_the_weights(tmp_path: Path) -> None:
    """As after a lost shard has come back without slots."""
    with deployed(tmp_path) as deployment:
        write(deployment, lambda now: transitions.rehome(now, ["b"], "for the test"))

        def back_up(now: Topology) -> Topology:
            shards = tuple(replace(shard, state=ShardState.UP) for shard in now.shards)
            return replace(now, shards=shards, epoch=now.epoch + 1)

        write(deployment, back_up)
        found = await deployment.look("check")
    assert findings_of(found, "topology.balance") == [("note", "topology")]
    assert "b has 0 slots, and 2,048" in text_of(found, "topology.balance")


async def test_what_a_change_has_left(tmp_path: Path) -> None:
    """Queues and members of slots that a shard does not serve any more."""
    with deployed(tmp_path) as deployment:
        async with deployment.receiver() as layer:
            names = [name for name in map(str, range(50)) if await layer.locate(name) == "b"]
            for name in names[:5]:
                await layer.send(name, {"type": "x"})
                await layer.group_add(name, "normal")
        # Not as operators do it: nothing is moved.
        write(deployment, lambda now: with_slots_of(now, "a"))
        found = await deployment.look("check")
    assert findings_of(found, "shard.leftovers") == [("note", "b")]
    assert "5 messages in 5 queues, and members of 5 groups" in text_of(found, "shard.leftovers")


def with_slots_of(topology: Topology, shard: str) -> Topology:
    return replace(topology, table=SlotTable((shard,) * SLOTS), epoch=topology.epoch + 1)


async def test_a_change_that_nobody_drives(tmp_path: Path) -> None:
    """Begun and left, or paused: who began it, and what to do."""
    with deployed(tmp_path) as deployment:
        store = open_store(deployment.store)
        decisions = Decisions(store, Operator("ada", "ops-1", 4711))
        now = await decisions.read()
        wanted = [now.shard("a"), Shard("b", now.shard("b").url, weight=3)]
        await decisions.begin(plan(now, wanted, "weight b 3"), step=256)
        left = await deployment.look("check")
        await decisions.pause("lunch")
        paused = await deployment.look("check")
        store.close()
    assert findings_of(left, "change") == [("warning", "topology")]
    assert "nobody drives it: weight b 3, begun by ada@ops-1" in text_of(left, "change")
    assert "paused (lunch)" in text_of(paused, "change")


async def test_monitors(tmp_path: Path) -> None:
    """None is a warning, one alone a note."""
    with deployed(tmp_path) as deployment:
        assert await rule_of(deployment, "monitor.running") == [("warning", "monitors")]
        with monitors(deployment, 1):

            async def one_leads() -> bool:
                return await rule_of(deployment, "monitor.running") == [("note", "monitors")]

            await eventually_async(one_leads)
            status = await deployment.look("status")
    assert [monitor["leads"] for monitor in status["monitors"]] == [True]


def test_an_empty_store(tmp_path: Path) -> None:
    """Is a finding with a remedy, not an error."""
    deployment = Deployment({}, (tmp_path / "none.json").as_uri())
    result = deployment.run("check", "--json")
    assert result.exit_code == 5
    assert "init" in text_of(json.loads(result.stdout), "store.reachable")


async def test_a_login_that_zookeeper_refuses(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    """The right one is well; without it the remedy names the options, and nothing the password."""
    url = f"zookeeper://{zookeeper.hosts}/{uuid.uuid4().hex}/topology"
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"digest": "ada:pa55word"}))
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"digest": "ada:mistaken"}))
    with deployed(tmp_path, options=({},)) as source:
        deployment = Deployment(source.servers, url)
        created = changed_init(deployment, options)
        assert created.returncode == 0, created.stderr
        right = await deployment.look("check", "--store-options", str(options))
        refused = await deployment.look("check", "--store-options", str(wrong))
    assert findings_of(right, "store.access") == [("ok", "store")]
    assert ("problem", "store") in findings_of(refused, "store.reachable")
    assert "digest" in text_of(refused, "store.reachable")
    assert "mistaken" not in json.dumps(refused)


def changed_init(deployment: Deployment, options: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("cluster-layer"))
    shards = [f"{name}={server.url}" for name, server in deployment.servers.items()]
    arguments = ["init", *shards, "--store", deployment.store, "--store-options", str(options)]
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


async def test_zookeeper_servers_that_are_away(tmp_path: Path) -> None:
    """One of two: a warning; the topology is read all the same. Both: a problem."""
    with ZooKeeperServer() as server, ZooKeeperServer() as other:
        other.kill()
        url = f"zookeeper://{server.hosts},{other.hosts}/topology"
        options = tmp_path / "options.json"
        options.write_text(json.dumps({"timeout_s": 2.0}))
        with deployed(tmp_path, store=url) as deployment:
            one = await deployment.look("check")
            server.kill()
            none = await deployment.look("check", "--store-options", str(options))
    assert ("warning", other.hosts) in findings_of(one, "store.reachable")
    assert ("problem", server.hosts) in findings_of(none, "store.reachable")
    assert ("problem", "store") in findings_of(none, "store.reachable")


async def test_a_store_that_may_only_be_read(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    """As processes may have it; whoever wants to change something learns that he cannot."""
    path = f"/{uuid.uuid4().hex}"
    ours = make_digest_acl("ada", "pa55word", all=True)
    everybody = make_acl("world", "anyone", read=True)
    client = KazooClient(zookeeper.hosts)
    client.start()
    client.create(path, acl=[ours, everybody])
    client.stop()
    client.close()
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"digest": "ada:pa55word"}))
    with deployed(tmp_path, options=({},)) as source:
        deployment = Deployment(source.servers, f"zookeeper://{zookeeper.hosts}{path}/topology")
        created = changed_init(deployment, options)
        assert created.returncode == 0, created.stderr
        grant = KazooClient(zookeeper.hosts, auth_data=[("digest", "ada:pa55word")])
        grant.start()
        grant.set_acls(f"{path}/topology", [ours, everybody])
        grant.stop()
        grant.close()
        found = await deployment.look("check")
    assert findings_of(found, "store.access") == [("warning", "store"), ("note", "store")]
    assert problems_of(found, "store.reachable") == []


def test_check_is_a_table_for_people(tmp_path: Path) -> None:
    """The worst first, each with its remedy; --quiet leaves out what is well."""
    with deployed(tmp_path, options=({"appendonly": "yes"}, {})) as deployment:
        whole = deployment.run("check")
        quiet = deployment.run("check", "--quiet")
    assert whole.exit_code == quiet.exit_code == 6
    assert "appendonly no" in whole.stdout
    assert "appendonly no" in quiet.stdout
    assert "shard.eviction" in whole.stdout
    assert "shard.eviction" not in quiet.stdout
