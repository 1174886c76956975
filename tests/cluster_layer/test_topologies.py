"""The newest topology of a process, from whichever side it comes."""

import logging
from dataclasses import replace

import pytest

from cluster_layer.endpoints import endpoints_of
from cluster_layer.topologies import Topologies, fixed_topologies
from topology.codec import encode
from topology.model import Shard
from topology.planning import initial_topology

CLUSTER = "0123456789abcdef"
FIRST = initial_topology([Shard("a", "redis://a"), Shard("b", "redis://b")], cluster=CLUSTER)
SECOND = replace(FIRST, epoch=FIRST.epoch + 1)


def test_a_newer_topology_is_used_and_told() -> None:
    """Once; an older or equal one changes nothing."""
    topologies = Topologies(FIRST)
    told: list[int] = []
    topologies.follow(lambda: told.append(topologies.routes.epoch))
    assert topologies.offer(SECOND)
    assert not topologies.offer(SECOND)
    assert not topologies.offer(FIRST)
    assert topologies.topology is SECOND
    assert told == [SECOND.epoch]


def test_a_topology_of_another_cluster_is_a_stranger() -> None:
    """Whatever its epoch."""
    topologies = Topologies(FIRST)
    assert not topologies.offer(replace(SECOND, cluster="f" * 16))
    assert topologies.topology is FIRST


def test_a_topology_that_cannot_be_used_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The one in use stays, and the log names the reason without any password."""
    shards = (FIRST.shards[0], replace(FIRST.shards[1], url="redis://:secret@b:no-port"))
    topologies = Topologies(FIRST)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert not topologies.offer(replace(SECOND, shards=shards))
    assert topologies.topology is FIRST
    assert len(caplog.messages) == 1
    assert f"epoch {SECOND.epoch}" in caplog.messages[0]
    assert "secret" not in caplog.messages[0]


def test_what_a_shard_keeps_may_be_no_topology() -> None:
    """It is ignored; a good one is used."""
    topologies = Topologies(FIRST)
    for garbage in (b"", b"{}", b"\xff", encode(SECOND)[:-1]):
        assert not topologies.offer_encoded(garbage)
    assert topologies.offer_encoded(encode(SECOND))
    assert topologies.topology == SECOND


def test_a_list_of_hosts_keeps_its_endpoints() -> None:
    """With their passwords, which no topology has."""
    hosts = endpoints_of(["redis://:secret@one", "redis://two"])
    topologies = fixed_topologies(hosts)
    assert set(topologies.routes.endpoints().values()) == set(hosts)
    assert b"secret" not in encode(topologies.topology)
