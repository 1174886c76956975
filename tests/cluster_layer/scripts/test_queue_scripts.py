"""Queues of normal channels: push, pop, put back, and their way to another shard."""

from cluster_layer import scripts
from tests.cluster_layer.scripts.shard import EXPIRY_MS, Shard


def test_a_queue_is_first_in_first_out(shard: Shard) -> None:
    """Items are stored with their deadline and popped as they were stored, oldest first."""
    before = shard.now_ms()
    assert shard.push("one") == [1, 0, 0]
    assert shard.push("two") == [1, 0, 0]
    now, expired, items = shard.pop(5)
    assert expired == 0
    assert [item.partition(b":")[2] for item in items] == [b"one", b"two"]
    for item in items:
        deadline = int(item.partition(b":")[0])
        assert before + EXPIRY_MS <= deadline <= int(now) + EXPIRY_MS
    assert shard.pop(5)[2] == []


def test_a_pop_takes_no_more_than_is_wanted_of_each_queue(shard: Shard) -> None:
    """Several queues in one call, each with its own count, answered in the order of the keys."""
    for queue, count in (("a", 3), ("b", 1), ("c", 2)):
        for number in range(count):
            arguments = (10, EXPIRY_MS, f"{queue}{number}")
            shard.write(scripts.QUEUE_PUSH, [queue], *arguments)
    popped = shard.pop(2, 2, 0, keys=("a", "b", "c"))[2:]
    bodies = [[item.partition(b":")[2] for item in items] for items in popped]
    assert bodies == [[b"a0", b"a1"], [b"b0"], []]
    assert shard.redis.llen("a") == 1
    assert shard.redis.llen("c") == 2


def test_a_full_queue_refuses(shard: Shard) -> None:
    """The reply names the depth, and the queue stays as it is."""
    for _ in range(2):
        shard.push("m", capacity=2)
    assert shard.push("m", capacity=2) == [0, 2, 0]
    assert shard.redis.llen("queue") == 2


def test_expired_items_make_room_in_a_full_queue(shard: Shard) -> None:
    """Only those at the head: behind one that lives, order would be lost."""
    shard.push("old", capacity=2, expiry_ms=50)
    shard.push("alive", capacity=2)
    shard.pass_ms(60)
    assert shard.push("new", capacity=2) == [1, 0, 1]
    assert [item.partition(b":")[2] for item in shard.pop(5)[2]] == [b"alive", b"new"]


def test_expired_items_are_never_popped(shard: Shard) -> None:
    """They are dropped and counted, and do not count as wanted."""
    shard.push("old", expiry_ms=50)
    shard.push("old", expiry_ms=50)
    shard.push("new")
    shard.pass_ms(60)
    _, expired, items = shard.pop(1)
    assert expired == 2
    assert [item.partition(b":")[2] for item in items] == [b"new"]


def test_items_that_are_put_back_come_first_and_in_their_order(shard: Shard) -> None:
    """Whoever pops next gets them as if nobody had taken them."""
    for body in ("one", "two", "three"):
        shard.push(body)
    assert [item.partition(b":")[2] for item in shard.pop(2)[2]] == [b"one", b"two"]
    assert shard.put_back(b"9000:one", b"9000:two") == 2
    assert [item.partition(b":")[2] for item in shard.pop(5)[2]] == [b"one", b"two", b"three"]


def test_a_queue_lives_as_long_as_its_messages(shard: Shard) -> None:
    """A message with a shorter expiry does not shorten the key's life; a return renews it."""
    shard.push("long", expiry_ms=50_000)
    shard.push("short", expiry_ms=1000)
    assert shard.redis.pttl("queue") > 49_000
    shard.pop(2)
    shard.put_back(b"9000:long", b"9000:short")
    assert shard.redis.pttl("queue") > EXPIRY_MS


def test_what_is_put_back_keeps_what_is_left_of_its_time(shard: Shard) -> None:
    """By the clock of the shard that it is put back to, which need not be where it came from."""
    before = shard.now_ms()
    shard.put_back(b"5000:m:with:colons")
    (item,) = shard.redis.lrange("queue", 0, -1)
    deadline, _, body = item.partition(b":")
    assert before + 5000 <= int(deadline) <= shard.now_ms() + 5000
    assert body == b"m:with:colons"


def test_a_queue_goes_to_its_new_home_batch_by_batch(shard: Shard) -> None:
    """From its end, so that the batches, each put at the head, keep their order."""
    for number in range(5):
        shard.push(str(number))
    for name in ("x", "y", "z"):
        now, taken, *items = shard.take(name, 2)
        assert taken == name.encode()
        bodies = [item.partition(b":")[2] for item in items]
        left = [int(item.partition(b":")[0]) - int(now) for item in items]
        assert all(0 < ms <= EXPIRY_MS for ms in left)
        moved = [b"%d:%b" % (ms, body) for ms, body in zip(left, bodies, strict=True)]
        keys = ["other", f"receipt {name}"]
        assert shard.write(scripts.QUEUE_RECEIVE, keys, EXPIRY_MS, *moved) == 1
        assert shard.settle(name, back=False) == len(items)
    assert len(shard.take("w", 2)) == 1
    bodies = [item.partition(b":")[2] for item in shard.redis.lrange("other", 0, -1)]
    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_a_batch_that_was_left_is_found_again(shard: Shard) -> None:
    """Whoever resumes gets the same items under the same name, and takes nothing more."""
    for number in range(3):
        shard.push(str(number))
    first = shard.take("first", 2)
    again = shard.take("second", 2)
    assert again[1:] == first[1:]
    assert shard.redis.llen("queue") == 1


def test_a_batch_that_is_looked_for_is_not_made(shard: Shard) -> None:
    """Whoever only looks after what others have left sets nothing aside."""
    shard.push("m")
    assert len(shard.take("", 0)) == 1
    assert shard.redis.llen("queue") == 1


def test_a_batch_goes_back_to_its_place(shard: Shard) -> None:
    """Behind what is older, before what came later; under another name it is none, and stays."""
    for number in range(3):
        shard.push(str(number))
    shard.take("name", 2)
    shard.pass_ms(2)
    shard.push("later")
    assert shard.settle("other", back=True) == -1
    assert shard.settle("name", back=True) == 2
    assert shard.settle("name", back=True) == -1
    bodies = [item.partition(b":")[2] for item in shard.redis.lrange("queue", 0, -1)]
    assert bodies == [b"0", b"1", b"2", b"later"]
    assert shard.without_ttl() == []


def test_a_batch_is_taken_in_once(shard: Shard) -> None:
    """The receipt tells that it has been; who asks without one makes it impossible."""
    assert shard.take_in("receipt", b"1000:m") == 1
    assert shard.take_in("receipt", b"1000:m") == 0
    assert shard.redis.llen("queue") == 1
    assert shard.take_in("another") == 1
    assert shard.take_in("another", b"1000:m") == 0
    assert shard.without_ttl() == []
