"""Topology to bytes and back, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER, topologies
from topology.codec import MAX_BYTES, decode, encode
from topology.errors import TopologyInvalid, TopologyTooLarge
from topology.hashing import SLOTS
from topology.model import Shard, Topology
from topology.planning import initial_topology

GOOD = encode(
    initial_topology(
        [Shard("a", "redis://a"), Shard("b", "redis://:hunter2@b", 2)], cluster=CLUSTER
    )
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(topologies())
def test_what_is_encoded_decodes_to_an_equal_topology(topology: Topology) -> None:
    """Phases, all tables, weights and states survive, and equal values have equal bytes."""
    data = encode(topology)
    assert decode(data) == topology
    assert encode(decode(data)) == data


@settings(max_examples=20, deadline=None)
@given(topologies(max_shards=600))
def test_many_shards_survive_too(topology: Topology) -> None:
    """Beyond 256 shards a table has three digits per slot, up to there two."""
    data = encode(topology)
    assert decode(data) == topology
    digits = 2 if len(topology.shards) <= 256 else 3
    assert len(json.loads(data)["table"]) == digits * SLOTS


def test_a_topology_without_the_field_has_no_change() -> None:
    """Who writes topologies by other means need not know of changes."""
    document = json.loads(GOOD)
    del document["change"]
    assert decode(json.dumps(document).encode()).change is None


def test_sizes_are_far_from_what_a_store_takes() -> None:
    """Eight shards need less than 15 kB, 1,000 shards a fifth of the limit."""
    few, many = (
        initial_topology(
            [Shard(f"shard-{i}", f"redis://host-{i}.example:6379") for i in range(n)],
            cluster=CLUSTER,
        )
        for n in (8, 1000)
    )
    print(f"8 shards: {len(encode(few))} bytes, 1,000 shards: {len(encode(many))} bytes")
    assert len(encode(few)) < 15_000
    assert len(encode(many)) < MAX_BYTES / 5 < 2**20


def test_a_topology_too_large_for_a_store_is_refused_before_it_is_written() -> None:
    """The limit is checked where the bytes are made."""
    shards = [Shard(f"s{i}", f"redis://{i}/" + "x" * 2030) for i in range(256)]
    with pytest.raises(TopologyTooLarge) as caught:
        encode(initial_topology(shards, cluster=CLUSTER))
    assert caught.value.size > caught.value.limit == MAX_BYTES


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(GOOD) | fields).encode()


CHANGED: dict[str, Any] = {
    "id": "0" * 16,
    "summary": "",
    "operator": {"user": "a", "host": "b", "pid": 1},
    "started_at": 1,
    "began_from": 1,
    "table": "00" * SLOTS,
    "slots": 1,
    "step": 1,
    "arriving": [],
    "leaving": [],
    "former": [],
    "aborting": False,
}

REFUSED = [
    (b"", "not a JSON topology"),
    (b"\xff\xfe", "not a JSON topology"),
    (b"[" * 100_000, "not a JSON topology"),
    (b"1" * 5000, "not a JSON topology"),
    (b"[]", "a JSON object, not list"),
    (b" " * (MAX_BYTES + 1), f"the limit is {MAX_BYTES}"),
    (changed(version=2), "version 2, this software reads 1"),
    (changed(version=True), "version True"),
    (changed(version=None), "version None"),
    (changed(epoch="3"), "'epoch' must be int, not str"),
    (changed(homes_since=0), "homes_since must be an integer from 1"),
    (changed(homes_since=2**52), "homes_since is 4503599627370496, after epoch"),
    (changed(homes_since="1"), "'homes_since' must be int, not str"),
    (changed(epoch=0), "epoch must be an integer from 1"),
    (changed(phase="later"), "'phase' is 'later'"),
    (changed(phase=[]), r"'phase' is \[\]"),
    (changed(phase="prepared"), "pending table is needed"),
    (changed(shards={}), "'shards' must be list"),
    (changed(shards=[]), "1 to 1024 shards|names shard"),
    (changed(cluster=None), "'cluster' must be str, not NoneType"),
    (changed(cluster="c"), "cluster must be 16"),
    (changed(change=[]), "the change must be an object, not list"),
    (changed(change={}), "the change: 'id' must be str"),
    (changed(change=CHANGED | {"operator": 7}), "operator of the change must be an object"),
    (changed(change=CHANGED | {"operator": {"user": 5}}), "operator's user must be printable"),
    (changed(change=CHANGED | {"arriving": None}), "'arriving' must be list"),
    (changed(change=CHANGED | {"leaving": [1]}), "shards by their ids, not by 1"),
    (changed(change=CHANGED | {"table": "02" * SLOTS}), "table of the change names shard 2"),
    (changed(change=CHANGED | {"former": [1]}), "shard 0 must be an object, not int"),
    (changed(change=CHANGED | {"id": "1"}), "id of a change must be 16"),
    (changed(shards=[1, 2]), "shard 0 must be an object, not int"),
    (changed(shards=[{"id": "a", "url": 3}] * 2), "shard 0: 'url' must be str, not int"),
    (changed(shards=[{"id": "a", "url": "r://a", "state": "up"}] * 2), "weight of shard 'a'"),
    (changed(shards=[{"id": "a", "url": "r://a", "state": "?", "weight": 1}]), "'state' is"),
    (changed(table=None), "table must be a string of 8192"),
    (changed(table="00" * 4095), "table must be a string of 8192"),
    (changed(table="0 " * SLOTS), "table must be a string of 8192"),
    (changed(table="0A" * SLOTS), "table must be a string of 8192"),
    (changed(table="02" * SLOTS), "table names shard 2, but there are 2"),
    (changed(pending=5, phase="prepared"), "pending must be a string"),
    (GOOD.replace(b'"epoch":1', b'"epoch":NaN'), "NaN is no JSON number"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_wrong_bytes_are_refused_and_the_reason_named(data: bytes, reason: str) -> None:
    """Garbage, foreign versions and wrong types or values are told apart, and no secret shown."""
    with pytest.raises(TopologyInvalid, match=reason) as caught:
        decode(data)
    assert "hunter2" not in str(caught.value)


def test_fields_of_a_later_version_are_ignored() -> None:
    """A later release may add fields without a new version."""
    assert decode(changed(later=[1, {"a": None}])) == decode(GOOD)


@given(st.binary(max_size=200))
def test_random_bytes_give_the_one_error(data: bytes) -> None:
    """Nothing else than TopologyInvalid ever comes out of decode."""
    with pytest.raises(TopologyInvalid):
        decode(data)


@settings(max_examples=300)
@given(st.sampled_from(sorted(json.loads(GOOD))), json_values, st.integers(0, 400), json_values)
def test_a_damaged_topology_gives_the_one_error_or_a_valid_one(
    field: str, value: Any, cut: int, shard_field: Any
) -> None:
    """Replacing any field by any JSON value, or any byte, raises nothing but TopologyInvalid."""
    shards = json.loads(GOOD)["shards"]
    shards[0][("id", "url", "weight", "state")[cut % 4]] = shard_field
    damaged = GOOD[:cut] + bytes([cut % 256]) + GOOD[cut + 1 :]
    for data in (changed(**{field: value}), changed(shards=shards), damaged, GOOD[:cut]):
        try:
            assert isinstance(decode(data), Topology)
        except TopologyInvalid as error:
            assert str(error)  # noqa: PT017
