"""Names become keys that separate layers, lives of a server, and databases."""

import pytest

from cluster_layer.keys import ClusterKeys, Keys, incarnation_of, parse_info

RUN = "0123456789abcdef0123456789abcdef01234567"
CLUSTER = "0123456789abcdef"
REPLICATION = "fedcba9876543210fedcba9876543210fedcba98"


def all_of(keys: Keys) -> set[bytes]:
    return {
        keys.inbox("x.1!"),
        keys.queue("x"),
        keys.members("x"),
        keys.reply("x"),
        keys.seq,
        keys.log,
    }


def pubsub_of(keys: Keys) -> set[bytes]:
    return {keys.group("x"), keys.control}


@pytest.mark.parametrize(
    ("other_run", "other_replication"),
    [("1" + RUN[1:], REPLICATION), (RUN, "1" + REPLICATION[1:])],
    ids=["restarted", "promoted"],
)
def test_a_restart_and_a_promotion_begin_another_life(
    other_run: str, other_replication: str
) -> None:
    """The incarnation changes with the run id and with the replication id."""
    assert incarnation_of(RUN, REPLICATION) == "01234567fedcba98"
    assert incarnation_of(other_run, other_replication) != incarnation_of(RUN, REPLICATION)


def test_the_fields_of_an_info_reply() -> None:
    """Headings and empty lines are no fields; a value may hold colons."""
    text = "# Server\r\nrun_id:abc\r\n\r\nexecutable:/a:b\r\nempty:\r\n"
    assert parse_info(text) == {"run_id": "abc", "executable": "/a:b", "empty": ""}


@pytest.mark.parametrize(
    "other",
    [Keys("other", CLUSTER, "life", 0), Keys("layer", CLUSTER, "other", 0)],
    ids=["prefix", "incarnation"],
)
def test_layers_and_lives_share_no_key(other: Keys) -> None:
    """Another prefix and another life have nothing in common."""
    keys = Keys("layer", CLUSTER, "life", 0)
    assert not all_of(keys) & all_of(other)
    assert not pubsub_of(keys) & pubsub_of(other)


def test_the_databases_of_a_server_share_no_pubsub_channel() -> None:
    """Pub/sub knows no databases, so its names have the number in them; keys need none."""
    zero, one = Keys("layer", CLUSTER, "life", 0), Keys("layer", CLUSTER, "life", 1)
    assert not pubsub_of(zero) & pubsub_of(one)
    assert all_of(zero) == all_of(one)


def test_every_kind_of_name_has_a_key_of_its_own() -> None:
    """A channel and a group of one name never meet, and all keys begin with the base."""
    keys = Keys("layer", CLUSTER, "life", 3)
    assert len(all_of(keys)) == 6
    assert all(key.startswith(b"layer:life:") for key in all_of(keys) | pubsub_of(keys))


def test_a_group_is_found_again_in_its_pubsub_channel() -> None:
    """What a subscription reports names the group, whatever the prefix holds."""
    keys = Keys("pre:g0:fix-\N{GREEK SMALL LETTER ALPHA}", CLUSTER, "life", 12)
    assert keys.group_of(keys.group("room.a-b_c")) == "room.a-b_c"


def cluster_keys_of(keys: ClusterKeys) -> set[bytes]:
    return {
        *(keys.epoch, keys.topology, keys.reports, keys.beats),
        *(keys.announcements, keys.process("1")),
    }


def test_layers_of_a_cluster_share_what_is_the_cluster_s() -> None:
    """Whatever their prefix; other clusters and other lives have their own."""
    ours, theirs = Keys("layer", CLUSTER, "life", 0), Keys("other", CLUSTER, "life", 0)
    assert cluster_keys_of(ours.cluster) == cluster_keys_of(theirs.cluster)
    assert len(cluster_keys_of(ours.cluster)) == 6
    base = f"cluster-layer:{CLUSTER}:life:".encode()
    assert all(key.startswith(base) for key in cluster_keys_of(ours.cluster))
    for other in (ClusterKeys("f" * 16, "life", 0), ClusterKeys(CLUSTER, "next", 0)):
        assert not cluster_keys_of(ours.cluster) & cluster_keys_of(other)
