"""The Lua scripts on real shards: replies as their headers say, capacity, clock, fences, TTLs."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_layer import scripts
from cluster_layer.embedded import RedisServer, find_binary
from cluster_layer.scripts import Script
from tests.support.waiting import eventually

BINARIES = sorted({find_binary(), shutil.which("redis-server") or find_binary()})
EXPIRY_MS = 60_000
NEVER_LATE = 2**53


class Shard:
    """One shard and its scripts."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url, protocol=2)
        self.fence_ms = NEVER_LATE
        self.epoch = 7  # the writer's

    def run(self, script: Script, keys: list[str], *arguments: Any) -> Any:
        return self.redis.eval(script.text, len(keys), *keys, *arguments)

    def write(self, script: Script, keys: list[str], *arguments: Any) -> Any:
        """Run one that begins with fence.lua."""
        return self.run(script, ["epoch", *keys], self.fence_ms, self.epoch, *arguments)

    def now_ms(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def wait_until(self, moment_ms: int) -> None:
        eventually(lambda: self.now_ms() > moment_ms)

    def pass_ms(self, milliseconds: int) -> None:
        """Return when that much time has passed on the shard's clock."""
        self.wait_until(self.now_ms() + milliseconds)

    def append(self, body: str, *, capacity: int = 10, expiry_ms: int = EXPIRY_MS) -> Any:
        arguments = (capacity, expiry_ms, body)
        return self.write(scripts.INBOX_APPEND, ["inbox", "entries"], *arguments)

    def push(self, body: str, *, capacity: int = 10, expiry_ms: int = EXPIRY_MS) -> Any:
        return self.write(scripts.QUEUE_PUSH, ["queue"], capacity, expiry_ms, body)

    def pop(self, *wanted: int, keys: tuple[str, ...] = ("queue",)) -> Any:
        return self.run(scripts.QUEUE_POP, list(keys), *wanted)

    def put_back(self, *items: bytes) -> Any:
        return self.write(scripts.QUEUE_RETURN, ["queue"], EXPIRY_MS, *items)

    def take_in(self, batch: str, *items: bytes) -> Any:
        return self.write(scripts.QUEUE_RECEIVE, ["queue", batch], EXPIRY_MS, *items)

    def take(self, name: str, count: int, queue: str = "queue") -> Any:
        return self.write(scripts.QUEUE_TAKE, [queue, "batch"], name, count, EXPIRY_MS)

    def settle(self, name: str, *, back: bool) -> Any:
        arguments = (name, int(back), EXPIRY_MS)
        return self.write(scripts.QUEUE_SETTLE, ["queue", "batch"], *arguments)

    def group_send(self, body: str = "m") -> Any:
        return self.write(scripts.GROUP_SEND, ["members", "seq"], "pubsub", body)

    def store(self, *members: str, expiry_ms: int = EXPIRY_MS, copied: int = 0) -> Any:
        described = [x for m in members for x in (m, expiry_ms, f"stored {m}")]
        arguments = ("pubsub", copied, *described)
        return self.write(scripts.GROUP_STORE, ["members", "seq", "log"], *arguments)

    def leave(self, member: str, expiry_ms: int = EXPIRY_MS, tombstone: int = 0) -> Any:
        arguments = (member, expiry_ms, "pubsub", f"leave {member}", tombstone)
        return self.write(scripts.GROUP_LEAVE, ["members", "seq", "log"], *arguments)

    def join(self, member: str, tombstone: int = 0) -> Any:
        arguments = (member, EXPIRY_MS, "pubsub", f"unstored {member}", tombstone)
        return self.write(scripts.GROUP_JOIN, ["members", "seq", "log"], *arguments)

    def quit(self, member: str, tombstone: int = 0) -> Any:
        arguments = (member, EXPIRY_MS, tombstone)
        return self.write(scripts.GROUP_QUIT, ["members"], *arguments)

    def log(self) -> list[tuple[str, int]]:
        found = self.redis.zrange("log", 0, -1, withscores=True)
        return [(control.decode(), int(position)) for control, position in found]

    def without_ttl(self) -> list[bytes]:
        return [key for key in self.redis.scan_iter() if self.redis.pttl(key) < 0]


@pytest.fixture(scope="module", params=BINARIES, ids=lambda path: Path(path).parent.name)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=request.param) as server:
        yield server


@pytest.fixture
def shard(server: RedisServer) -> Iterator[Shard]:
    shard = Shard(server)
    shard.redis.flushall()
    shard.redis.set("epoch", shard.epoch, ex=1000)
    yield shard
    shard.redis.close()


@pytest.fixture
def published(shard: Shard) -> Any:
    """What the group's subscribers hear, as a function that returns the next payload."""
    subscription = shard.redis.pubsub()
    subscription.subscribe("pubsub")
    assert subscription.get_message(timeout=10)["type"] == "subscribe"

    def following() -> str:
        message = eventually(lambda: subscription.get_message(timeout=1))
        return str(message["data"].decode())

    yield following
    subscription.close()


# -- all of them


SCRIPTS = [script for script in vars(scripts).values() if isinstance(script, Script)]
FILES = {path.stem: path.read_text() for path in Path(scripts.__file__).parent.glob("*.lua")}
FENCE = FILES.pop("fence")


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_a_script_with_a_header(name: str) -> None:
    """Each operation has one file, which says its keys, arguments and reply, and is loaded."""
    text = FILES[name]
    is_fenced = "fence.lua" in text
    assert (FENCE + text if is_fenced else text) in {script.text for script in SCRIPTS}
    header = text[: re.search(r"^[^-]", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    used = set(re.findall(r"(KEYS|ARGV)\[(\d)\]", text.removeprefix(header)))
    documented = set(re.findall(r"(KEYS|ARGV)\[(\d)\+?\]", header))
    assert used <= documented
    assert "-- Reply" in header


def test_a_script_is_known_by_the_hash_of_its_text(shard: Shard) -> None:
    """EVALSHA finds what SCRIPT LOAD has loaded."""
    for script in SCRIPTS:
        assert shard.redis.script_load(script.text) == script.sha


def _writes(shard: Shard) -> dict[str, Callable[[], Any]]:
    return {
        "append": lambda: shard.append("m"),
        "push": lambda: shard.push("m"),
        "return": lambda: shard.put_back(b"1000:m"),
        "receive": lambda: shard.take_in("batch", b"1000:m"),
        "send": lambda: shard.group_send(),
        "store": lambda: shard.store("c"),
        "leave": lambda: shard.leave("c"),
        "join": lambda: shard.join("c", tombstone=1),
        "quit": lambda: shard.quit("c", tombstone=1),
    }


WRITES = ["append", "push", "return", "receive", "send", "store", "leave", "join", "quit"]


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_behind_its_fence_changes_nothing(shard: Shard, verb: str) -> None:
    """A command that arrives after its deadline, by the shard's clock, is refused as a whole."""
    write = _writes(shard)[verb]
    shard.fence_ms = shard.now_ms() - 1
    with pytest.raises(redis.exceptions.ResponseError, match=r"^LATE"):
        write()
    assert shard.redis.dbsize() == 1
    shard.fence_ms = shard.now_ms() + 60_000
    write()
    assert shard.redis.dbsize() > 1


@pytest.mark.parametrize("verb", WRITES)
def test_a_writer_that_is_behind_changes_nothing(shard: Shard, verb: str) -> None:
    """The shard serves a newer topology: refused, whatever the slot, and told its epoch."""
    write = _writes(shard)[verb]
    shard.redis.set("epoch", shard.epoch + 3)
    with pytest.raises(redis.exceptions.ResponseError, match=r"^STALE 10"):
        write()
    assert shard.redis.keys() == [b"epoch"]
    shard.epoch = 10
    write()
    assert shard.redis.dbsize() > 1


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("served", [None, 6])
def test_a_writer_that_is_ahead_changes_nothing(
    shard: Shard, verb: str, served: int | None
) -> None:
    """It has to bring its topology first, so that what is done by the old one cannot come later."""
    write = _writes(shard)[verb]
    shard.redis.flushall()
    if served is not None:
        shard.redis.set("epoch", served)
    with pytest.raises(redis.exceptions.ResponseError, match=r"^AHEAD"):
        write()
    assert shard.redis.dbsize() == (served is not None)


# -- inbox


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


# -- queues


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


# -- queues on their way to another shard


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


# -- groups


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


@pytest.mark.parametrize("verb", ["append", "push", "group_send", "store", "leave"])
def test_every_key_that_a_script_makes_has_a_ttl(shard: Shard, verb: str) -> None:
    """Nothing stays on a shard for ever."""
    argument = {"append": "m", "push": "m", "group_send": "m"}.get(verb, "c")
    getattr(shard, verb)(argument)
    assert shard.redis.dbsize() > 0
    assert shard.without_ttl() == []


def test_a_join_leaves_no_key_without_a_ttl(shard: Shard) -> None:
    """Also where the counter and the log were gone and the join has to make them."""
    shard.store("c")
    shard.redis.delete("seq", "log")
    assert shard.join("c") == [1, 1]
    assert shard.without_ttl() == []


def test_memberships_outlast_nothing_but_their_own_expiry(shard: Shard) -> None:
    """The keys of a group live as long as its longest membership, also after a shorter one."""
    shard.store("long", expiry_ms=500_000)
    shard.store("short", expiry_ms=1000)
    shard.leave("other", expiry_ms=1000)
    for key in ("members", "log"):
        assert 400_000 < shard.redis.pttl(key) <= 500_000


# -- topology and reports


def test_a_topology_replaces_an_older_one(shard: Shard, published: Any) -> None:
    """It is announced then, and not when the shard has it, or a newer one."""

    def install(epoch: int) -> Any:
        text = f"topology {epoch}"
        return shard.run(scripts.TOPOLOGY_INSTALL, ["epoch", "topology"], epoch, text, "pubsub")

    assert [install(epoch) for epoch in (9, 10, 10, 9)] == [b"9", b"10", b"10", b"10"]
    shard.redis.publish("pubsub", "end")
    assert [published() for _ in range(3)] == ["9", "10", "end"]
    assert shard.redis.mget("epoch", "topology") == [b"10", b"topology 10"]
    assert shard.without_ttl() == []


def test_reports_of_the_living_are_kept(shard: Shard) -> None:
    """A silent process is forgotten after a while, unless its connection is there."""

    def report(process: str) -> int:
        keys = ["reports", "beats"]
        return int(shard.run(scripts.REPORT, keys, process, f"{process} is well", "process:"))

    stopped = shard.redis.pubsub()
    stopped.subscribe("process:stopped")
    assert stopped.get_message(timeout=10)["type"] == "subscribe"
    for process in ("gone", "stopped", "silent"):
        report(process)
    long_ago = shard.now_ms() - 61_000
    shard.redis.zadd("beats", {"gone": long_ago, "stopped": long_ago})
    now = report("alive")
    assert abs(now - shard.now_ms()) < 60_000
    assert set(shard.redis.hkeys("reports")) == {b"stopped", b"silent", b"alive"}
    assert shard.redis.zcard("beats") == 3
    assert shard.redis.hget("reports", "alive") == b"alive is well"
    assert shard.without_ttl() == []
    stopped.close()
