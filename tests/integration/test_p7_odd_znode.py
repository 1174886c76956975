"""P7: whatever is written over the topology in ZooKeeper, a process that runs keeps the good one.

The contents are random: bytes, JSON of all kinds, spoilt topologies, and sound ones that must not
count. Each is read by a layer that sends and receives meanwhile, from a real server.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kazoo.client import KazooClient

from cluster_layer.sync import SyncChannelLayer
from tests.support.layers import DEADLINE_S, numbered
from tests.support.sites import Site, site
from tests.support.waiting import eventually
from tests.support.zookeeper import ZooKeeperServer
from topology.codec import MAX_BYTES, decode, encode
from topology.errors import TopologyInvalid
from topology.follower import Condition, Follower
from topology.model import Topology

LARGEST = 1_000_000  # about what ZooKeeper takes in one znode
CONTENTS = 150

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\0", "steady"])
    | st.sampled_from([("0", 8192), ("9", 5000)]).map(lambda part: part[0] * part[1])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
# A beginning, what is repeated, how often, and an end.
texts = st.sampled_from(
    [
        (b"", b"", 0, b""),
        (b"{}", b"", 0, b""),
        (b"null", b"", 0, b""),
        (b"", b"[", 100_000, b""),
        (b"", b'{"version":', 50_000, b""),
        (b'{"version":1,"epoch":', b"9", 5000, b"}"),
        (b'{"version":1,"epoch":1e', b"9", 3, b"}"),
        (b"\xef\xbb\xbf{}", b"", 0, b""),
    ]
).map(lambda parts: parts[0] + parts[1] * parts[2] + parts[3])


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A change to the newest topology's bytes; made when it is known which one that is."""

    field: str
    value: Any
    cut: int  # bytes that are left of it, by thousandths
    padding: int
    codec: str

    def of(self, topology: Topology) -> bytes:
        document = json.loads(encode(replace(topology, epoch=topology.epoch + 1)))
        document[self.field] = self.value
        text = json.dumps(document)
        data = text.encode(self.codec, "surrogatepass")
        return (data[: len(data) * self.cut // 1000] + b" " * self.padding)[:LARGEST]


spoilt = st.builds(
    Spoilt,
    field=st.sampled_from(
        [
            *("version", "cluster", "epoch", "phase", "shards", "table"),
            *("pending", "previous", "change", "homes_since"),
        ]
    ),
    value=values,
    cut=st.sampled_from([1000, 1000, 999, 500, 1]),
    padding=st.sampled_from([0, 0, 0, 1, MAX_BYTES, LARGEST]),
    codec=st.sampled_from(["utf-8", "utf-8", "utf-16"]),
)


@dataclass(frozen=True, slots=True)
class Sound:
    """A topology of the wrong epoch, of another cluster, or with shards that can't be reached."""

    epochs_more: int
    foreign: bool = False
    scheme: str = "redis://"

    def of(self, topology: Topology) -> bytes:
        shards = tuple(
            replace(shard, url=shard.url.replace("redis://", self.scheme))
            for shard in topology.shards
        )
        other = replace(topology, epoch=max(1, topology.epoch + self.epochs_more), shards=shards)
        return encode(replace(other, cluster=secrets.token_hex(8)) if self.foreign else other)


sound = st.builds(
    Sound,
    epochs_more=st.integers(-5, 1000),
    foreign=st.booleans(),
    scheme=st.sampled_from(["redis://", "ftp://", "redis://:{env:NOT_SET_ANYWHERE}@"]),
)


class Rig:
    """A layer that runs, and somebody who writes to its znode."""

    def __init__(self, zookeeper: ZooKeeperServer, made: Site, copy: Path) -> None:
        self.site = made
        self.copy = copy
        self.layer = SyncChannelLayer(**made.config(topology_cache=str(copy)))
        self.path = "/" + made.store.rpartition("/")[2]
        self.writer = KazooClient(zookeeper.hosts)
        self.writer.start(DEADLINE_S)
        self.topology = made.topology()
        self.sent = 0
        self.talk()
        follower = self.layer._core._hosts._follower
        assert isinstance(follower, Follower)
        self.follower = follower
        self.threads = {thread.name for thread in threading.enumerate()}

    def close(self) -> None:
        self.layer.close()
        self.writer.stop()
        self.writer.close()

    def talk(self) -> None:
        """A message goes through the layer."""
        self.sent += 1
        name = f"channel-{self.sent % 7}"
        self.layer.send(name, numbered(self.sent))
        assert self.layer.receive(name, DEADLINE_S) == numbered(self.sent)

    def put(self, data: bytes | None) -> None:
        """Put this where the topology is; None deletes it. Returns when the follower has looked."""
        looks = self.follower.counts.total()
        if data is None:
            self.writer.delete(self.path)
        elif self.writer.exists(self.path):
            self.writer.set(self.path, data)
        else:
            self.writer.create(self.path, data)
        eventually(lambda: self.follower.counts.total() > looks)

    def go_on(self) -> None:
        """The next epoch of the good one comes, and counts."""
        self.topology = replace(self.topology, epoch=self.topology.epoch + 1)
        self.writer.set(self.path, encode(self.topology))
        eventually(lambda: self.layer.stats()["epoch"] == self.topology.epoch)
        eventually(lambda: self.follower.condition is None)
        eventually(lambda: decode(self.copy.read_bytes()) == self.topology)


@contextmanager
def rig_of(zookeeper: ZooKeeperServer, directory: Path) -> Iterator[Rig]:
    with (
        site(zookeeper.hosts, 2) as made,
        closing(Rig(zookeeper, made, directory / "last-good.json")) as rig,
    ):
        yield rig


def expected(data: bytes | None, current: Topology) -> Condition | None:
    """What the follower must say of it; None: it may be used."""
    if data is None:
        return Condition.MISSING
    try:
        found = decode(data)
    except TopologyInvalid:
        return Condition.INVALID
    if found.cluster != current.cluster:
        return Condition.FOREIGN
    if found.epoch < current.epoch:
        return Condition.LOWER_EPOCH
    if found.epoch == current.epoch and found != current:
        return Condition.CONFLICT
    # Every shard of the site has a URL of this kind.
    usable = all(shard.url.startswith("redis://127.") for shard in found.shards)
    return None if usable else Condition.UNUSABLE


@pytest.mark.timeout(300)
# The layer's threads draw their jitter while an example is made.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_nothing_in_the_znode_replaces_the_good_topology(
    zookeeper: ZooKeeperServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor its copy; each is counted, told once, and forgotten when the next good one comes."""
    caplog.set_level(logging.WARNING, "topology.follower")
    with rig_of(zookeeper, tmp_path) as rig:
        met = set()

        def times_told(condition: Condition) -> int:
            return sum(message.startswith(condition.value) for message in list(caplog.messages))

        @settings(max_examples=CONTENTS, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.none() | st.binary(max_size=300) | texts | spoilt | sound, st.booleans())
        @example(None, False)
        @example(b"\x00" * LARGEST, True)
        @example(Sound(1, foreign=True), True)
        @example(Sound(-1), True)
        @example(Sound(0, scheme="ftp://"), True)
        @example(Sound(7, scheme="ftp://"), True)
        @example(Sound(7, scheme="redis://:{env:NOT_SET_ANYWHERE}@"), True)
        def run(content: bytes | Spoilt | Sound | None, healed: bool) -> None:
            data = content.of(rig.topology) if isinstance(content, Spoilt | Sound) else content
            condition = expected(data, rig.topology)
            if condition is None or (data is None and not rig.writer.exists(rig.path)):
                return
            before, counted = rig.follower.condition, rig.follower.counts[condition]
            caplog.clear()
            rig.put(data)
            eventually(lambda: rig.follower.condition is condition)
            met.add(condition)
            assert rig.follower.counts[condition] > counted
            if condition is not before:  # it is told just after it is met
                eventually(lambda: times_told(condition) > 0)
            assert times_told(condition) == (condition is not before), caplog.messages
            assert rig.follower.current == rig.topology
            assert decode(rig.copy.read_bytes()) == rig.topology
            assert rig.layer.stats()["epoch"] == rig.topology.epoch
            rig.talk()
            if healed and rig.writer.exists(rig.path):
                rig.go_on()

        run()
        assert met == set(Condition) - {Condition.UNREACHABLE}
        if not rig.writer.exists(rig.path):
            rig.writer.create(rig.path, b"")
        rig.go_on()
        rig.talk()
        assert rig.threads <= {thread.name for thread in threading.enumerate()}
