"""Groups: publication, stored memberships, tombstones, the log."""

from typing import Any

import pytest
import redis

from cluster_layer import scripts
from tests.cluster_layer.scripts.shard import Shard


def test_a_group_message_is_published_with_its_position(shard: Shard, published: Any) -> None:
    """Positions count publications of the shard; the reply names the position."""
    assert shard.group_send("one") == [1]
    assert shard.group_send("two") == [2]
    assert [published(), published()] == ["1:one", "2:two"]


def test_stored_members_are_named_to_the_sender(shard: Shard, published: Any) -> None:
    """From their storing on, and the group's subscribers hear of it in order with the messages."""
    shard.group_send("before")
    assert shard.store("c1") == [2, 1]
    shard.store("c2")
    assert shard.group_send("after") == [4, b"c1", b"c2"]
    heard = [published() for _ in range(4)]
    assert heard == ["1:before", "2:stored c1", "3:stored c2", "4:after"]
    assert shard.log() == [("2:stored c1", 2), ("3:stored c2", 3)]


def test_a_stored_membership_ends_by_the_shard_s_clock(shard: Shard) -> None:
    """After its expiry a member is not named any more; another store clears it away."""
    shard.store("short", expiry_ms=50)
    shard.store("long")
    shard.pass_ms(60)
    assert shard.group_send()[1:] == [b"long"]
    shard.store("other")
    assert shard.redis.zrange("members", 0, -1) == [b"long", b"other"]


def test_storing_again_renews(shard: Shard) -> None:
    """The later deadline counts."""
    shard.store("c", expiry_ms=50)
    shard.store("c")
    shard.pass_ms(60)
    assert shard.group_send()[1:] == [b"c"]


def test_a_leave_removes_and_is_published(shard: Shard, published: Any) -> None:
    """In order with the messages, and also where nothing was stored: a subscriber may serve it."""
    shard.store("c")
    assert shard.leave("c") == 2
    assert shard.group_send("after") == [3]
    assert shard.leave("stranger") == 4
    heard = [published() for _ in range(4)]
    assert heard == ["1:stored c", "2:leave c", "3:after", "4:leave stranger"]
    assert shard.log() == [("1:stored c", 1), ("2:leave c", 2), ("4:leave stranger", 4)]


def test_a_join_without_a_stored_membership_costs_no_position(shard: Shard) -> None:
    """It tells the position of the last publication, 0 before the first."""
    assert shard.join("c") == [0, 0]
    shard.group_send()
    assert shard.join("c") == [0, 1]
    assert shard.log() == []
    assert shard.group_send() == [2]


def test_a_join_takes_a_stored_membership_over(shard: Shard, published: Any) -> None:
    """It is stored no more, at a position that the subscribers hear of."""
    shard.store("c")
    assert shard.join("c") == [1, 2]
    assert shard.group_send("after") == [3]
    assert [published() for _ in range(3)] == ["1:stored c", "2:unstored c", "3:after"]
    assert shard.log() == [("1:stored c", 1), ("2:unstored c", 2)]


def test_a_copy_brings_what_is_not_there(shard: Shard, published: Any) -> None:
    """Each copied member is published like a stored one; who is there, or has left, stays so."""
    shard.store("there")
    shard.leave("left", tombstone=1)
    shard.join("joined", tombstone=1)
    shard.quit("quit", tombstone=1)
    everybody = ("there", "left", "joined", "quit", "new", "newer")
    assert shard.store(*everybody, copied=1) == [4, 2]
    assert set(shard.group_send()[1:]) == {b"there", b"new", b"newer"}
    heard = [published() for _ in range(5)]
    assert heard == ["1:stored there", "2:leave left", "3:stored new", "4:stored newer", "5:m"]


@pytest.mark.parametrize("verb", ["leave", "join", "quit"])
def test_a_tombstone_ends_by_the_shard_s_clock(shard: Shard, verb: str) -> None:
    """After that a copy is as good as any; a store does not care for it at all."""
    shard.store("c")
    getattr(shard, verb)("c", tombstone=1)
    assert shard.group_send()[1:] == []
    assert shard.without_ttl() == []
    shard.store("c")
    assert shard.group_send()[1:] == [b"c"]
    shard.redis.zadd("members", {"c": -(shard.now_ms() - 1)})
    shard.store("other")
    assert shard.redis.zrange("members", 0, -1) == [b"other"]


def test_a_join_takes_over_what_is_stored_though_it_leaves_a_tombstone(shard: Shard) -> None:
    """Its own tombstone, and another's, are no membership to take over."""
    shard.store("c")
    assert shard.join("c", tombstone=1)[0] == 1
    assert shard.join("c", tombstone=1)[0] == 0
    assert shard.join("c")[0] == 0
    assert shard.redis.zcard("members") == 0


def test_a_quit_removes_in_silence(shard: Shard) -> None:
    """It is told whether there was anything; no position is used up."""
    shard.store("c")
    assert [shard.quit("c"), shard.quit("c")] == [1, 0]
    assert shard.redis.get("seq") == b"1"
    assert shard.group_send() == [2]


def test_the_log_keeps_every_change(shard: Shard) -> None:
    """Also one that was made before: messages in between were for whoever was a member then."""
    shard.store("c")
    shard.join("c")
    shard.store("c")
    assert shard.log() == [("1:stored c", 1), ("2:unstored c", 2), ("3:stored c", 3)]


def test_the_log_is_bounded(shard: Shard) -> None:
    """Ten thousand controls are kept, the latest."""
    shard.redis.zadd("log", {f"old {number}": number for number in range(1, 10_001)})
    shard.redis.set("seq", 10_000)
    shard.leave("c")
    assert shard.redis.zcard("log") == 10_000
    assert shard.log()[-1] == ("10001:leave c", 10_001)
    assert shard.log()[0] == ("old 2", 2)


def test_memberships_outlast_nothing_but_their_own_expiry(shard: Shard) -> None:
    """The keys of a group live as long as its longest membership, also after a shorter one."""
    shard.store("long", expiry_ms=500_000)
    shard.store("short", expiry_ms=1000)
    shard.leave("other", expiry_ms=1000)
    for key in ("members", "log"):
        assert 400_000 < shard.redis.pttl(key) <= 500_000


def test_leftover_memberships_are_cleaned_by_who_is_not_late(shard: Shard) -> None:
    """Once a newer topology is served, what is there may be no leftover."""
    shard.store("c")
    assert shard.write(scripts.MEMBERS_CLEAN, ["members", "others"]) == 1
    assert not shard.redis.exists("members")
    shard.store("c")
    shard.redis.set("epoch", shard.epoch + 1)
    with pytest.raises(redis.exceptions.ResponseError, match=r"^STALE"):
        shard.write(scripts.MEMBERS_CLEAN, ["members"])
    assert shard.redis.exists("members")
