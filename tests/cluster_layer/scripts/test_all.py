"""What is true of every script: a header, its hash, fences, and a TTL on every key."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_layer import scripts
from cluster_layer.scripts import Script
from tests.cluster_layer.scripts.shard import Shard

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
