"""Inboxes: entries of a stream, capacity, expiry."""

from cluster_layer import scripts
from tests.cluster_layer.scripts.shard import EXPIRY_MS, NEVER_LATE, Shard


def test_an_appended_message_is_an_entry_of_the_stream(shard: Shard) -> None:
    """The entry holds the envelope and the position that the reply names, counted from 1."""
    assert shard.append("one") == [1, 1, 0]
    assert shard.append("two") == [1, 2, 0]
    fields = [fields for _, fields in shard.redis.xrange("inbox")]
    assert fields == [{b"m": b"one", b"p": b"1"}, {b"m": b"two", b"p": b"2"}]


def test_positions_of_two_inboxes_are_one_order_within_a_millisecond(shard: Shard) -> None:
    """They rise with the writes, also where the ids of the two streams can't tell."""
    count = 1000
    transaction = shard.redis.pipeline(transaction=True)
    for number in range(count):
        keys = ("even" if number % 2 == 0 else "odd", "entries")
        arguments = (NEVER_LATE, shard.epoch, count, EXPIRY_MS, number)
        transaction.eval(scripts.INBOX_APPEND.text, 3, "epoch", *keys, *arguments)
    assert transaction.execute() == [[1, number + 1, 0] for number in range(count)]
    even, odd = shard.redis.xrange("even"), shard.redis.xrange("odd")
    milliseconds = [{entry_id.split(b"-")[0] for entry_id, _ in stream} for stream in (even, odd)]
    assert milliseconds[0] & milliseconds[1]
    entries = sorted((int(fields[b"p"]), int(fields[b"m"])) for _, fields in even + odd)
    assert entries == [(number + 1, number) for number in range(count)]


def test_a_full_inbox_refuses(shard: Shard) -> None:
    """Capacity counts what waits; the reply names the depth, and neither entry nor position is
    added.
    """
    for _ in range(3):
        assert shard.append("m", capacity=3)[0] == 1
    assert shard.append("m", capacity=3) == [0, 3, 0]
    assert shard.redis.xlen("inbox") == 3
    assert shard.append("m", capacity=4) == [1, 4, 0]


def test_expired_entries_make_room_in_a_full_inbox(shard: Shard) -> None:
    """They are dropped by the shard's clock, counted, and only where room is needed."""
    shard.append("old", capacity=2, expiry_ms=50)
    shard.append("old", capacity=2, expiry_ms=50)
    shard.pass_ms(60)
    accepted, _, expired = shard.append("new", capacity=2, expiry_ms=50)
    assert (accepted, expired) == (1, 2)
    assert [fields[b"m"] for _, fields in shard.redis.xrange("inbox")] == [b"new"]


def test_an_inbox_outlives_its_messages(shard: Shard) -> None:
    """The stream's TTL exceeds the expiry by enough for a reader that is late."""
    shard.append("m", expiry_ms=5000)
    assert 5000 < shard.redis.pttl("inbox") <= 65_000
