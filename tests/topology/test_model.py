"""The frozen topology and what it refuses."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topology.strategies import CLUSTER, OPERATOR, topologies
from topology.errors import TopologyInvalid
from topology.hashing import SLOTS, slot_of
from topology.model import Change, Phase, Shard, ShardState, SlotTable, Topology, redacted_url

A = Shard("a", "redis://a:6379")
B = Shard("b", "redis://b:6379", 2)
TABLE = SlotTable(("a", "b") * (SLOTS // 2))
ALL_B = SlotTable(("b",) * SLOTS)
STEADY = Topology(CLUSTER, 3, (A, B), TABLE)
CHANGE = Change("1" * 16, "all to b", OPERATOR, 1_700_000_000, 3, ALL_B, slots=2048, step=64)


def test_a_name_is_owned_by_the_owner_of_its_slot() -> None:
    """shard_of, owner_of, slots_of and the table say the same."""
    for name in ("room", "chat.7", "specific.x!y"):
        slot = slot_of(name)
        assert STEADY.shard_of(name) is STEADY.owner_of(slot) is STEADY.shard(TABLE.owners[slot])
        assert slot in STEADY.slots_of(STEADY.shard_of(name).id)
    assert STEADY.slots_of("a") == tuple(range(0, SLOTS, 2))
    assert TABLE.counts() == {"a": 2048, "b": 2048}


def test_an_unknown_shard_is_a_key_error() -> None:
    """Asking for a shard that is not there never gives an empty answer."""
    with pytest.raises(KeyError):
        STEADY.shard("c")
    with pytest.raises(KeyError):
        STEADY.slots_of("c")


@given(topologies())
def test_a_topology_is_a_value(topology: Topology) -> None:
    """Copies and pickles are equal; fields cannot be set; it hashes."""
    assert pickle.loads(pickle.dumps(topology)) == topology == copy.deepcopy(topology)  # noqa: S301
    assert hash(replace(topology)) == hash(topology)
    with pytest.raises(FrozenInstanceError):
        topology.epoch = 1  # type: ignore[misc]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 1e7, 1e-9, True, "1", None])
def test_an_impossible_weight_is_refused(weight: float) -> None:
    """A weight is a finite number within the limits, and no bool."""
    with pytest.raises(TopologyInvalid, match="weight of shard 'a'"):
        Shard("a", "redis://a", weight)


@pytest.mark.parametrize("shard_id", ["", "a b", "a\n", "x" * 256, "\ud800", 7])
def test_an_impossible_shard_id_is_refused(shard_id: str) -> None:
    """An id is printable, without spaces and not longer than 255 characters."""
    with pytest.raises(TopologyInvalid, match="the shard id"):
        Shard(shard_id, "redis://a")


@pytest.mark.parametrize("url", ["", "redis://a b", "host:6379", None, "redis://a\0", "r://" * 600])
def test_an_impossible_url_is_refused(url: str) -> None:
    """A URL is printable and has a scheme."""
    with pytest.raises(TopologyInvalid, match="URL of shard 'a'"):
        Shard("a", url)


def test_a_state_is_one_of_the_known() -> None:
    """A state given as text is an error, not a surprise later."""
    with pytest.raises(TopologyInvalid, match="state of shard 'a' is 'up'"):
        Shard("a", "redis://a", 1, "up")  # type: ignore[arg-type]


WRONG: list[tuple[str, dict[str, object]]] = [
    ("cluster must be 16", {"cluster": "C0FFEE0123456789"}),
    ("cluster must be 16", {"cluster": None}),
    ("the change must be a Change", {"change": "all to b"}),
    ("epoch", {"epoch": 0}),
    ("epoch", {"epoch": 2**53}),
    ("epoch", {"epoch": True}),
    ("epoch", {"epoch": 1.0}),
    ("1 to 1024 shards", {"shards": ()}),
    ("tuple of 1 to 1024", {"shards": [A, B]}),
    ("tuple of Shard", {"shards": (A, "b")}),
    ("1 to 1024", {"shards": tuple(Shard(f"s{i}", f"redis://{i}") for i in range(1025))}),
    ("two shards have the id 'a'", {"shards": (A, B, replace(B, id="a", url="redis://x"))}),
    ("has the URL of another", {"shards": (A, B, replace(A, id="c"))}),
    ("'b', which is not a shard", {"shards": (A,)}),
    ("'b', which is down", {"shards": (A, replace(B, state=ShardState.DOWN))}),
    ("SlotTable", {"table": None}),
    ("pending table is not allowed", {"pending": ALL_B}),
    ("previous one not allowed", {"previous": ALL_B}),
    ("pending table is needed", {"phase": Phase.PREPARED}),
    ("previous one needed", {"phase": Phase.COMMITTED}),
    ("phase", {"phase": "steady"}),
    (
        "pending: slots belong to 'c'",
        {"phase": Phase.PREPARED, "pending": SlotTable(("c",) * SLOTS)},
    ),
]


@pytest.mark.parametrize(("reason", "change"), WRONG)
def test_an_inconsistent_topology_is_refused(reason: str, change: dict[str, object]) -> None:
    """Nobody can hold a topology that breaks a rule; the error names the rule."""
    with pytest.raises(TopologyInvalid, match=reason):
        replace(STEADY, **change)  # type: ignore[arg-type]


@given(topologies())
def test_a_moving_slot_has_an_other_home(topology: Topology) -> None:
    """It is the owner to come or the one that was, if that differs and is not down."""
    other = topology.pending or topology.previous or topology.table
    moving = set(topology.moving)
    for slot in range(SLOTS):
        here, there = topology.owner_of(slot), topology.shard(other.owners[slot])
        wanted = None if here is there or there.state is ShardState.DOWN else there
        assert topology.other_home(slot) is wanted
        assert (slot in moving) is (wanted is not None)


def test_a_slot_has_no_other_home_on_a_shard_that_is_down() -> None:
    """What was lost with a shard is not read there."""
    down = replace(A, state=ShardState.DOWN)
    changed = Topology(CLUSTER, 4, (down, B), ALL_B, Phase.COMMITTED, previous=TABLE)
    assert changed.moving == ()
    assert replace(changed, shards=(A, B)).moving == TABLE.slots_of("a")


def test_final_shards_are_those_that_stay() -> None:
    """During a change the shards that leave are there, at its end they are not."""
    leaving = replace(CHANGE, leaving=("a",))
    assert STEADY.final_shards() == (A, B)
    assert replace(STEADY, change=leaving).final_shards() == (B,)


WRONG_CHANGES: list[tuple[str, dict[str, object]]] = [
    ("id of a change must be 16", {"id": "7"}),
    ("summary", {"summary": "a\nb"}),
    ("summary", {"summary": "x" * 501}),
    ("operator", {"operator": "ada"}),
    ("started_at", {"started_at": -1}),
    ("began_from", {"began_from": 0}),
    ("SlotTable", {"table": ("b",) * SLOTS}),
    ("the slots", {"slots": SLOTS + 1}),
    ("the step", {"step": 0}),
    ("the step", {"step": True}),
    ("arriving", {"arriving": ["a"]}),
    ("leaving", {"leaving": ("a", "a")}),
    ("former", {"former": ("a",)}),
    ("pause", {"paused": False}),
    ("aborting", {"aborting": 1}),
]


@pytest.mark.parametrize(("reason", "change"), WRONG_CHANGES)
def test_an_impossible_change_is_refused(reason: str, change: dict[str, object]) -> None:
    """A change checks its own fields; the error names the field."""
    with pytest.raises(TopologyInvalid, match=reason):
        replace(CHANGE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("the table of the change: slots belong to 'c'", {"table": SlotTable(("c",) * SLOTS)}),
        ("'b' is leaving, and gets slots", {"leaving": ("b",)}),
        ("leaving: 'c' is not a shard", {"leaving": ("c",)}),
        ("arriving: 'c' is not a shard", {"arriving": ("c",)}),
        ("undone in phase steady", {"aborting": True}),
    ],
)
def test_a_change_fits_its_topology(reason: str, change: dict[str, object]) -> None:
    """What it speaks of is there, and the shards that it ends with can own slots."""
    with pytest.raises(TopologyInvalid, match=reason):
        replace(STEADY, change=replace(CHANGE, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("operator", [{"user": "a\0"}, {"host": None}, {"pid": -1}, {"pid": "1"}])
def test_an_impossible_operator_is_refused(operator: dict[str, object]) -> None:
    """Texts are printable, the process id is a number."""
    with pytest.raises(TopologyInvalid, match="the operator's"):
        replace(OPERATOR, **operator)  # type: ignore[arg-type]


@pytest.mark.parametrize("owners", [(), ("a",) * 4095, ["a"] * SLOTS, (1,) * SLOTS])
def test_a_table_names_one_shard_per_slot(owners: tuple[str, ...]) -> None:
    """A table is a tuple of exactly 4,096 ids."""
    with pytest.raises(TopologyInvalid):
        Topology(CLUSTER, 1, (A,), SlotTable(owners))


def test_a_shard_that_is_down_may_be_in_the_previous_table() -> None:
    """After a commit a source may be lost before its leftovers are read."""
    down = replace(A, state=ShardState.DOWN)
    changed = Topology(CLUSTER, 4, (down, B), ALL_B, Phase.COMMITTED, previous=TABLE)
    assert changed.shard_of("room") is B


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/2", "redis://host:6379/2"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://user:hunter2@host", "redis://user:***@host"),
        ("redis://hunter2@host", "redis://:***@host"),
        ("redis://user:hunter/2@hunter2@host", "redis://user:***@host"),
        ("redis://host?db=1&password=hunter2", "redis://host?db=1&password=***"),
        ("redis://host?ssl_PASSWORD=hunter2&x=1", "redis://host?ssl_PASSWORD=***&x=1"),
        ("user:hunter2@host", "***"),
    ],
)
def test_a_shown_url_keeps_its_secrets(url: str, shown: str) -> None:
    """User information and secret-like parameters never appear."""
    assert redacted_url(url) == shown


@given(st.text("ab/:?#&=@%", min_size=1))
def test_no_userinfo_leaks_into_a_repr(userinfo: str) -> None:
    """Whatever characters a password has, repr and str of a shard and a topology hide it."""
    shard = Shard("a", f"redis://user:hunter2{userinfo}hunter2@host")
    topology = Topology(CLUSTER, 1, (shard,), SlotTable(("a",) * SLOTS))
    assert "hunter2" not in f"{shard!r} {shard} {topology!r} {topology}"
