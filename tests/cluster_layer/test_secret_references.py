"""Secrets by reference: the topology holds none, and no error tells one."""

from pathlib import Path

import pytest

from cluster_layer import ConfigError
from cluster_layer.embedded import RedisServer
from cluster_layer.endpoints import Endpoint
from cluster_layer.secret_references import MAX_BYTES, filled_in
from tests.support.layers import numbered, open_layer, receive, topology_store
from topology.ids import new_cluster_id
from topology.model import Shard
from topology.planning import initial_topology
from topology.stores import open_store

PASSWORD = "p@ss/w:ord %{x}"


def test_a_url_without_references_is_left_alone() -> None:
    """Also one that has braces for other reasons."""
    for url in ("redis://:a@h:1", "redis://:{x}@h", "redis://h/{env}", ""):
        assert filled_in(url) == url


def test_what_is_referred_to_is_put_in_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment and from a file, whose last line feed does not count."""
    monkeypatch.setenv("SHARD_PASSWORD", PASSWORD)
    (tmp_path / "user").write_text("app\n")
    url = f"redis://{{file:{tmp_path / 'user'}}}:{{env:SHARD_PASSWORD}}@h:7/2"
    options = Endpoint.from_url(url)._options
    assert (options["username"], options["password"]) == ("app", PASSWORD)
    assert Endpoint.from_url(url).id == "h:7/2"
    assert "ord" not in repr(Endpoint.from_url(url))


def test_what_can_not_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, never by its content."""
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ConfigError, match=r"\{env:NO_SUCH\}.* is not set"):
        Endpoint.from_url("redis://:{env:NO_SUCH}@h")
    with pytest.raises(ConfigError, match=r"\{file:/no/such\}.*No such file"):
        Endpoint.from_url("redis://:{file:/no/such}@h")
    for name, content in (("empty", b""), ("binary", b"\xff\xfe"), ("large", b"x" * 5000)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            Endpoint.from_url(f"redis://:{{file:{tmp_path / name}}}@h")
        assert name in str(refused.value)
        assert "xxx" not in str(refused.value)
    assert MAX_BYTES < 5000


async def test_a_topology_without_secrets_leads_to_shards_with_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the store and the shards hold is the reference."""
    monkeypatch.setenv("SHARD_PASSWORD", PASSWORD)
    with RedisServer(password=PASSWORD) as server:
        shard = Shard("a", f"redis://:{{env:SHARD_PASSWORD}}@127.0.0.1:{server.port}")
        url = topology_store(initial_topology([shard], cluster=new_cluster_id()))
        async with open_layer(topology=url) as layer:
            await layer.send("orders", numbered(1))
            assert await receive(layer, "orders") == numbered(1)
        store = open_store(url)
        topology = store.read()
        store.close()
        assert topology is not None
        assert topology.shards[0].url == shard.url
