"""A worker process of a layer with a defect: ``... mutants.worker NAME ORDERS.json``."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from chaos.environments import worker
from cluster_layer import session
from cluster_layer.batching import Batch, Command
from cluster_layer.buffers import Loss, Mailbox, Mailboxes, Parcel
from cluster_layer.connection import Connection
from cluster_layer.controls import LogEntry
from cluster_layer.counters import Counters
from cluster_layer.errors import DeliveryUnknown, ShardUnavailable
from cluster_layer.hosts import Hosts
from cluster_layer.inbox import InboxReader
from cluster_layer.layer import ClusterChannelLayer
from cluster_layer.links import Link
from cluster_layer.listener import Listener
from cluster_layer.marks import Trail
from cluster_layer.routing import Routes
from cluster_layer.subscriber import Subscriber
from tests.chaos.mutants.installing import installer, swap
from topology.errors import TopologyError

INSTALL: dict[str, Callable[[], None]] = {}
mutant = installer(INSTALL)


@mutant
def resend() -> None:
    once = Link.run

    async def run(self: Link, *arguments: Any) -> Any:
        try:
            return await once(self, *arguments)
        except DeliveryUnknown:
            return await once(self, *arguments)

    swap(Link, "run", run)


@mutant
def redis_retries() -> None:
    once = Link.run

    async def run(self: Link, *arguments: Any) -> Any:
        for attempt in range(10):
            try:
                return await once(self, *arguments)
            except (DeliveryUnknown, ShardUnavailable):
                await asyncio.sleep(min(0.5, 0.008 * 2**attempt))
        return await once(self, *arguments)

    swap(Link, "run", run)


@mutant
def no_incarnation() -> None:
    swap(session, "incarnation_of", lambda _run_id, _replication_id: "0" * 16)


@mutant
def copy_on_return() -> None:
    def take_all(_self: Mailboxes, box: Mailbox) -> list[Parcel]:
        return list(box.parcels)

    swap(Mailboxes, "take_all", take_all)


@mutant
def cursor_forgotten() -> None:
    read = InboxReader._read

    async def read_from_the_beginning(self: InboxReader, *arguments: Any) -> None:
        self._cursors._by_incarnation.clear()
        await read(self, *arguments)

    # Nothing is trimmed behind the cursor either: what was read is still there.
    swap(InboxReader, "_trims", lambda *_arguments: [])
    swap(InboxReader, "_read", read_from_the_beginning)


@mutant
def no_order() -> None:
    def unmarked(_trail: Trail, *_arguments: Any, **_more: Any) -> None:
        return None

    swap(Trail, "marks", unmarked)


@mutant
def deaf_to_kicks() -> None:
    on_change = Listener.on_change

    def hear(self: Listener, shard: str, change: LogEntry) -> None:
        if change.op != "leave":
            on_change(self, shard, change)

    swap(Listener, "on_change", hear)
    swap(Listener, "on_kick", lambda *_arguments: None)


@mutant
def lies() -> None:
    DeliveryUnknown.definite = True


@mutant
def silent_loss() -> None:
    lose = Counters.lose

    def lose_some(self: Counters, reason: Loss, count: int = 1) -> None:
        if reason is not Loss.FULL:
            lose(self, reason, count)

    swap(Counters, "lose", lose_some)


@mutant
def one_home() -> None:
    swap(Routes, "homes_of", lambda self, name: (self.shard_of(name),))


@mutant
def ignores_epochs() -> None:
    shard_of = Routes.shard_of
    first: list[Routes] = []

    def shard_by_the_first(self: Routes, name: str) -> str:
        first.append(self)
        del first[1:]
        return shard_of(first[0], name)

    swap(Routes, "shard_of", shard_by_the_first)


@mutant
def no_resubscription() -> None:
    enter = Subscriber._enter

    async def enter_alone(self: Subscriber, *arguments: Any) -> None:
        owner = self._owner
        if self._was_subscribed:
            swap(owner, "groups_on", lambda _shard: [])
        await enter(self, *arguments)

    swap(Subscriber, "_enter", enter_alone)


@mutant
def gives_up() -> None:
    receive = ClusterChannelLayer.receive

    async def receive_for_a_while(self: ClusterChannelLayer, channel: str) -> Any:
        async with asyncio.timeout(1.0):
            return await receive(self, channel)

    swap(ClusterChannelLayer, "receive", receive_for_a_while)


@mutant
def needs_zookeeper() -> None:
    sender = Hosts.sender

    asked_s = 0.0

    def sender_with_zookeeper(self: Hosts) -> Any:
        nonlocal asked_s
        if self._follower is not None and time.monotonic() - asked_s > 1.0:
            try:
                self._follower._store.read()
            except TopologyError:
                raise ShardUnavailable("any", "ZooKeeper is away") from None
            finally:
                asked_s = time.monotonic()
        return sender(self)

    swap(Hosts, "sender", sender_with_zookeeper)


@mutant
def never_settles() -> None:
    async def settled(_self: Link, *_arguments: Any) -> None:
        await asyncio.sleep(3600)

    swap(Link, "settled", settled)


@mutant
def no_ttl() -> None:
    add = Batch.add
    shas: dict[Any, str] = {}  # of a script -> of what is loaded instead

    def without_ttl(command: Command) -> Command:
        match command:
            case ("PEXPIRE", key, _):
                return ("EXISTS", key)
            case ("SCRIPT", "LOAD", str(text)):
                timeless = re.sub(r"redis\.call\('PEXPIRE'.*\)|, 'PX', [^)]*(?=\))", "", text)
                shas[_sha_of(text)] = _sha_of(timeless)
                return ("SCRIPT", "LOAD", timeless)
            case ("EVALSHA", sha, *rest):
                return ("EVALSHA", shas[sha], *rest)
        return command

    def add_timeless(self: Batch, commands: Sequence[Command], *more: Any) -> None:
        add(self, [without_ttl(command) for command in commands], *more)

    swap(Batch, "add", add_timeless)


def _sha_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@mutant
def foreign_error() -> None:
    once = Link.run

    async def run(self: Link, *arguments: Any) -> Any:
        try:
            return await once(self, *arguments)
        except DeliveryUnknown:
            raise ConnectionResetError("Connection reset by peer") from None

    swap(Link, "run", run)


@mutant
def wall_clock() -> None:
    def shard_time_ms(_self: Connection, *_arguments: Any) -> float:
        return time.time() * 1000

    swap(Connection, "shard_time_ms", shard_time_ms)


if __name__ == "__main__":
    INSTALL[sys.argv.pop(1)]()
    worker.main()
