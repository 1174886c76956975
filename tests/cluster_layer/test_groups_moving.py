"""Members of a group whose slot moves, in every order in which things can arrive.

Two shards, one process under test, and others that always know the newest topology. The process
learns of a topology when a strategy says so, or when a shard refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_layer import scripts
from cluster_layer.controls import LogEntry, control
from cluster_layer.errors import ShardUnavailable
from cluster_layer.groups import Groups
from cluster_layer.running import Redirected
from cluster_layer.scripts import Script
from tests.cluster_layer.test_groups import GROUP, LATER, A, B, FakeShard, World, settle

OLD, NEW = "old", "new"

#: What the epochs of one round mean: the homes of the group, that which is written to first.
HOMES = {1: (OLD,), 2: (OLD, NEW), 3: (NEW, OLD), 4: (NEW,)}
PREPARED, COMMITTED, FINISHED = 2, 3, 4


class Routes:
    """What Groups asks routes for, at one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def homes_of(self, _name: str) -> tuple[str, ...]:
        return HOMES[self.epoch]

    def shard_of(self, _name: str) -> str:
        return HOMES[self.epoch][0]

    def endpoints(self) -> set[str]:
        return {OLD, NEW}

    def needs_tombstone(self, _group: str, shard: str) -> bool:
        return self.epoch == PREPARED and shard == NEW


class Shard(FakeShard):
    """A shard that serves an epoch, and keeps tombstones and a log."""

    def __init__(self, name: str, world: MovingWorld) -> None:
        super().__init__()
        self.shard = name
        self.world = world
        self.tombstones: set[str] = set()
        self.log: list[tuple[int, int, str, str]] = []
        self.epochs: dict[int, int] = {}  # position -> epoch of its writer

    async def run(self, script: Script, epoch: int, build: Callable[..., Any]) -> Any:
        if self.shard not in self.world.routes.homes_of(GROUP) and not self.subscribed:
            raise Redirected(self.shard, "gone")
        _, (member, *rest) = build(self.keys)

        def work() -> Any:
            if epoch < self.world.epoch:
                return Redirected(self.shard, "STALE")
            if rest[-1]:
                self.tombstones.add(member)
            if script is scripts.GROUP_QUIT:
                return self.stored.discard(member)
            return self._join(member)

        try:
            return await self._command(work)
        except Redirected:
            self.world.learn()
            raise

    async def execute(self, *commands: tuple[Any, ...]) -> Any:
        replies = [await self._command(lambda c=c: self._answer(c)) for c in commands]  # type: ignore[misc]
        return replies if len(replies) > 1 else replies[0]

    def _answer(self, command: tuple[Any, ...]) -> Any:
        if command[0] == "EXISTS":
            return int(bool(self.stored or self.tombstones))
        assert command[0] == "ZRANGEBYSCORE"
        after = int(command[2][1:])
        return [
            b"%d:" % position + control(kind, GROUP, member, epoch)
            for position, epoch, kind, member in self.log
            if position > after
        ]

    def copy(self, member: str) -> None:
        if member not in self.stored | self.tombstones:
            self.store(member)

    def kick(self, member: str) -> int:
        if self.world.epoch == PREPARED and self.shard == NEW:
            self.tombstones.add(member)
        return super().kick(member)

    def store(self, member: str) -> None:
        self.tombstones.discard(member)
        super().store(member)

    def _publish(self, kind: str, member: str) -> int:
        position = super()._publish(kind, member)
        self.epochs[position] = self.world.epoch
        if kind != "message":
            self.log.append((position, self.world.epoch, kind, member))
        return position


class MovingWorld(World):
    """World, with two homes."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1  # that the shards serve
        self.routes = Routes(1)  # that the process goes by
        self.shards = {name: Shard(name, self) for name in (OLD, NEW)}
        self.settled = 1
        self.copied = False
        self.settling: asyncio.Task[Any] | None = None
        self.message = 0
        self.notices_at: list[tuple[str, str, int, int]] = []
        self.groups = Groups(
            links=self,  # type: ignore[arg-type]
            subscriber_of=self._subscriber_of,  # type: ignore[arg-type]
            put_all=self._put_all,
            context_of=lambda _: b"",
            expiry_ms=60_000,
            in_order=lambda shard: self.shards[shard].barrier(),
            spawn=self._spawn,
        )

    # -- what Groups uses as links

    def to(self, shard: str) -> Shard:
        return self.shards[shard]

    def restless(self, _name: str) -> ShardUnavailable:
        return ShardUnavailable(OLD, "restless")

    def _subscriber_of(self, shard: str) -> Shard:
        return self.shards[shard]

    # -- the topology

    def prepare(self, _member: str = "") -> None:
        if self.epoch == 1:
            self.epoch = PREPARED

    def commit(self, _member: str = "") -> None:
        if self.epoch == PREPARED and self.copied and self.settled == PREPARED:
            self.epoch = COMMITTED

    def finish(self, _member: str = "") -> None:
        if self.epoch == COMMITTED and self.settled == COMMITTED:
            self.epoch = FINISHED

    def copy(self, _member: str = "") -> None:
        if self.epoch == PREPARED and not self.copied:
            for member in sorted(self.shards[OLD].stored):
                self.shards[NEW].copy(member)
            self.copied = True

    def learn(self, _member: str = "") -> None:
        """The process hears of the topology."""
        if self.routes.epoch == self.epoch:
            return
        known, self.routes = self.routes.epoch, Routes(self.epoch)
        self.groups.follow(known)
        if self.settling is not None:
            self.settling.cancel()
        self.settling = self._spawn(self._settle(self.epoch))

    async def _settle(self, epoch: int) -> None:
        while True:
            try:
                await self.groups.settle()
                if epoch in (PREPARED, COMMITTED):
                    await self.shards[OLD].barrier()
                self.settled = epoch
                return
            except ShardUnavailable:
                await asyncio.sleep(0)

    # -- calls of other processes

    def store(self, member: str) -> None:
        for shard in HOMES[self.epoch]:
            self.shards[shard].store(member)
        self.invitations.append(member)
        self._changed_by_other(member, "in")

    def kick(self, member: str) -> None:
        for shard in HOMES[self.epoch]:
            position = self.shards[shard].kick(member)
            self.notices_at.append((shard, member, position, self.epoch))
        self._changed_by_other(member, "out")

    def send(self, _member: str = "") -> None:
        shard = self.shards[HOMES[self.epoch][0]]
        position, direct = shard.send()
        self.message += 1
        shard.bodies[position] = self.message
        for member in self.boxes:
            self.expected[member, self.message] = self.membership.get(member, "out")
            if member in direct:
                self.delivered[member, self.message] += 1

    # -- arrivals, at one of the shards each

    def push(self, shard: str = "") -> None:
        for one in self._chosen(shard):
            if not one.pushes:
                continue
            kind, *details = one.pushes.popleft()
            if kind == "answer":
                if not details[0].done():
                    details[0].set_result(None)
            elif kind == "message":
                body = str(one.bodies[details[1]]).encode()
                self.groups.fan_out(one.shard, GROUP, details[1], body, LATER)
            else:
                member, position = details
                change = LogEntry(position, one.epochs[position], kind, GROUP, member)
                self.groups.on_change(one.shard, change)

    def notice(self, _member: str = "") -> None:
        if self.notices_at:
            shard, member, position, epoch = self.notices_at.pop(0)
            self.groups.on_kick(shard, LogEntry(position, epoch, "kick", GROUP, member), "life")

    def command(self, shard: str = "") -> None:
        for one in self._chosen(shard):
            one.run_command()

    def reply(self, shard: str = "") -> None:
        for one in self._chosen(shard):
            one.deliver_reply()

    def request(self, shard: str = "") -> None:
        for one in self._chosen(shard):
            one.run_request()

    def _chosen(self, shard: str) -> list[Shard]:
        return [self.shards[shard]] if shard else list(self.shards.values())

    # -- running

    async def drain(self) -> None:
        await settle()
        while any(s.busy for s in self.shards.values()) or self.invitations or self.notices_at:
            for verb in ("command", "reply", "request", "push", "invite", "notice"):
                getattr(self, verb)()
                await settle()
        assert not self.tasks, "a call never ended"

    async def until_settled(self) -> None:
        """The coordinator waits; what comes by the inbox may come later than all the rest."""
        self.learn()
        for _ in range(100):
            await settle()
            if self.settled == self.epoch:
                return
            for verb in ("command", "reply", "request", "push"):
                getattr(self, verb)()
                await settle()
        raise AssertionError("the process does not settle")


Steps = list[tuple[str, str]]


def run(*phases: Steps) -> MovingWorld:
    """Play a round: what happens before it, prepared, copied, committed and after it."""

    async def main() -> MovingWorld:
        world = MovingWorld()
        before, prepared, copied, committed, after = phases
        await world.play(before)
        world.prepare()
        await world.play(prepared)
        world.copy()
        await world.play(copied)
        await world.until_settled()
        world.commit()
        await world.play(committed)
        await world.until_settled()
        world.finish()
        await world.play(after)
        world.learn()
        await world.drain()
        world.send()
        await world.drain()
        world.check()
        assert world.epoch == world.settled == FINISHED
        return world

    return asyncio.run(main())


def test_a_member_goes_on_being_served() -> None:
    """With a message at every step."""
    sending = [("send", "")]
    joining = [("join", A), *[(verb, "") for verb in ("request", "push", "command", "reply")]]
    world = run([*joining, *sending], sending, sending, sending, sending)
    assert set(world.delivered.values()) == {1}
    assert len(world.delivered) == 6
    assert not world.shards[OLD].subscribed


def test_a_group_without_members_leaves_nothing_at_either_home() -> None:
    """Neither subscription nor memory."""

    async def main() -> MovingWorld:
        world = MovingWorld()
        world.prepare()
        world.learn()
        world.join(A)
        await world.drain()
        assert all(shard.subscribed for shard in world.shards.values())
        world.leave(A)
        await world.drain()
        return world

    world = asyncio.run(main())
    assert not any(shard.subscribed for shard in world.shards.values())
    assert len(world.groups) == 0
    assert not any(box.groups for box in world.boxes.values())


_members = st.sampled_from([A, A, B])
_calls = st.tuples(st.sampled_from(["join", "leave", "store", "kick", "send", "send"]), _members)
_own_calls = st.tuples(st.sampled_from(["join", "leave", "send", "send"]), _members)
_learning = st.just(("learn", ""))
_arrivals = st.tuples(
    st.sampled_from(["command", "reply", "request", "push"]), st.sampled_from(["", OLD, NEW])
)
_inbox = st.tuples(st.sampled_from(["invite", "notice"]), st.just(""))
_own_steps = st.lists(st.one_of(_own_calls, _own_calls, _learning, _arrivals), max_size=12)
_steps = st.lists(st.one_of(_calls, _calls, _learning, _arrivals, _inbox), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[_own_steps] * 5))
def test_own_members_are_served_exactly_while_their_group_moves(phases: tuple[Steps, ...]) -> None:
    """A member for sure gets a message once, one who is out for sure never, others at most once."""
    run(*phases)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[_steps] * 5))
def test_members_are_served_exactly_while_their_group_moves(phases: tuple[Steps, ...]) -> None:
    """The same where other processes add and remove members."""
    run(*phases)
