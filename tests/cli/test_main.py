"""The command line as its users call it, on real stores."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster_layer.cli.main import main
from tests.support.stored import stored
from tests.support.zookeeper import ZooKeeperServer
from topology import SLOTS
from topology.planning import initial_topology

SHARDS = ("redis://h1:6379", "redis://h2:6379", "redis://h3:6379")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "topology.json").as_uri()


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def test_version() -> None:
    """--version prints the installed version."""
    result = run("--version")
    assert (result.exit_code, version("cluster-layer") in result.output) == (0, True)


def test_init_creates_what_show_shows(store: str) -> None:
    """init writes the first topology, and show prints the same as init did."""
    created = run("init", "--store", store, *SHARDS)
    assert created.exit_code == 0, created.output
    topology = stored(store)
    assert topology.epoch == 1
    assert sorted(shard.url for shard in topology.shards) == sorted(SHARDS)
    shown = json.loads(run("topology", "show", "--store", store, "--json").output)
    assert (shown["cluster"], shown["epoch"]) == (topology.cluster, 1)
    assert run("topology", "show", "--store", store).output == created.output
    assert "33.3%" in created.output


def test_init_never_replaces_a_topology(store: str) -> None:
    """A second init is refused with exit code 1 and changes nothing."""
    run("init", "--store", store, *SHARDS)
    before = stored(store)
    second = run("init", "--store", store, "redis://other:6379")
    assert (second.exit_code, "epoch 1" in second.output) == (1, True)
    assert stored(store) == before


def test_shards_can_be_named_and_weighted(store: str) -> None:
    """ID=URL names a shard, --weight gives it its share."""
    named = [f"s{number}={url}" for number, url in enumerate(SHARDS)]
    result = run("init", "--store", store, "--weight", "s0=2", "--json", *named)
    assert result.exit_code == 0, result.output
    slots = {shard["id"]: shard["slots"] for shard in json.loads(result.output)["shards"]}
    assert slots == {"s0": SLOTS // 2, "s1": SLOTS // 4, "s2": SLOTS // 4}


def test_unnamed_shards_are_called_as_in_a_list_of_hosts(store: str) -> None:
    """A site that moves from `hosts` to a store keeps its table."""
    run("init", "--store", store, *SHARDS)
    assert {shard.id for shard in stored(store).shards} == {"h1:6379", "h2:6379", "h3:6379"}
    found = stored(store)
    assert found.table == initial_topology(found.shards, cluster=found.cluster).table


def test_locate_agrees_with_the_topology(store: str) -> None:
    """locate says slot and shard of each name, in order."""
    run("init", "--store", store, *SHARDS)
    names = ["chat.lobby", "specific.abc!def", "emails"]
    result = run("locate", "--store", store, "--json", *names)
    assert result.exit_code == 0, result.output
    places = json.loads(result.output)
    topology = stored(store)
    assert [place["name"] for place in places] == names
    assert [place["shard"] for place in places] == [topology.shard_of(n).id for n in names]
    table = run("locate", "--store", store, *names).output
    assert all(name in table for name in names)


def test_passwords_are_kept_and_never_shown(store: str) -> None:
    """The store holds the URL as given; no output holds the password."""
    url = "redis://user:s3cret@h1:6379"
    outputs = [
        run("init", "--store", store, url),
        run("topology", "show", "--store", store),
        run("topology", "show", "--store", store, "--json"),
        run("locate", "--store", store, "name"),
        run("locate", "--store", store, "--json", "name"),
        run("init", "--store", store, url, url),
    ]
    assert stored(store).shards[0].url == url
    assert not any("s3cret" in result.output for result in outputs)


def test_an_empty_store_names_the_remedy(store: str) -> None:
    """Without a topology show fails with exit code 1 and says how to make one."""
    result = run("topology", "show", "--store", store)
    assert (result.exit_code, "`cluster-layer init`" in result.output) == (1, True)


def test_the_store_may_come_from_the_environment(store: str) -> None:
    """CLUSTER_LAYER_STORE stands in for --store."""
    assert run("init", *SHARDS, CLUSTER_LAYER_STORE=store).exit_code == 0
    assert run("topology", "show", CLUSTER_LAYER_STORE=store).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init", "redis://h1:6379"], "--store"),
        (["init", "--store", "mysql://h/x", "redis://h1:6379"], "zookeeper://"),
        (["init", "--store", "{store}"], "SHARD"),
        (["init", "--store", "{store}", "h1:6379"], "redis://"),
        (["init", "--store", "{store}", "redis://h1", "redis://h1"], "two shards"),
        (["init", "--store", "{store}", "a=redis://h1", "--weight", "b=2"], "'b'"),
        (["init", "--store", "{store}", "a=redis://h1", "--weight", "a=x"], "number"),
        (["locate", "--store", "{store}"], "NAME"),
    ],
)
def test_wrong_usage(store: str, arguments: list[str], said: str) -> None:
    """Wrong usage has exit code 2 and an answer that names what is wrong."""
    result = run(*[argument.format(store=store) for argument in arguments])
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_store_options_come_from_a_file(store: str, tmp_path: Path) -> None:
    """Options are read from a JSON file; a bad one is wrong usage, and its text is not quoted."""
    options = tmp_path / "options.json"
    options.write_text('{"timeout_s": 3}')
    arguments = ["init", "--store", store, "--store-options", str(options)]
    assert run(*arguments, *SHARDS).exit_code == 0
    options.write_text('{"password": s3cret')
    result = run(*arguments, *SHARDS)
    assert (result.exit_code, "s3cret" in result.output) == (2, False)


def test_zookeeper(zookeeper: ZooKeeperServer) -> None:
    """The production store works the same."""
    store = f"zookeeper://{zookeeper.hosts}/cli-test"
    assert run("init", "--store", store, *SHARDS).exit_code == 0
    assert run("topology", "show", "--store", store, "--json").exit_code == 0
    assert run("init", "--store", store, *SHARDS).exit_code == 1
