"""Members of a group whose slot moves, in every order in which things can arrive.

Two shards, one process under test, and others that always know the newest topology. The process
learns of a topology when a strategy says so, or when a shard refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_layer import scripts
from cluster_layer.controls import LogEntry, control
from cluster_layer.errors import ShardUnavailable
from cluster_layer.groups import Groups
from cluster_layer.routing import Routes
from cluster_layer.running import Redirected
from cluster_layer.scripts import Script
from tests.cluster_layer.test_groups import GROUP, LATER, A, B, FakeShard, World, settle
from topology import model, transitions
from topology.hashing import SLOTS
from topology.model import Topology
from topology.planning import plan

OLD, NEW = "old", "new"
STEADY, BEGUN, PREPARED, COMMITTED, FINISHED = 1, 2, 3, 4, 5


def _topologies() -> Iterator[Topology]:
    """Those of a change that moves everything."""
    old, new = model.Shard(OLD, "redis://127.0.0.1:1"), model.Shard(NEW, "redis://127.0.0.1:2")
    table = model.SlotTable((OLD,) * SLOTS)
    topology = Topology("0123456789abcdef", STEADY, (new, old), table)
    yield topology
    drained = plan(topology, [replace(old, state=model.ShardState.DRAINING), new])
    operator = model.Operator("tester", "localhost", 1)
    topology = transitions.begin(
        topology, drained, change_id="1" * 16, operator=operator, started_at=1, step=SLOTS
    )
    yield topology
    for transition in (transitions.prepare, transitions.commit, transitions.finish):
        topology = transition(topology)
        yield topology


ROUTES = {topology.epoch: Routes(topology) for topology in _topologies()}


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
        if command[0] == "ZSCORE":
            member = command[2]
            return b"1" if member in self.stored else b"-1" if member in self.tombstones else None
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
        self.epoch = STEADY  # that the shards serve
        self.routes = ROUTES[STEADY]  # that the process goes by
        self.shards = {name: Shard(name, self) for name in (OLD, NEW)}
        self.settled = STEADY
        self.unfinished: Callable[[], None] | None = None  # what another process has half done
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

    @property
    def homes(self) -> tuple[str, ...]:
        """Those of the group, by the newest topology."""
        return ROUTES[self.epoch].homes_of(GROUP)

    def begin(self, _member: str = "") -> None:
        if self.epoch == STEADY:
            self.epoch = BEGUN

    def prepare(self, _member: str = "") -> None:
        if self.epoch == BEGUN:
            self.epoch = PREPARED

    def commit(self, _member: str = "") -> None:
        self.go_on()
        if self.epoch == PREPARED and self.copied and self.settled == PREPARED:
            self.epoch = COMMITTED

    def finish(self, _member: str = "") -> None:
        self.go_on()
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
        known, self.routes = self.routes.epoch, ROUTES[self.epoch]
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
        def done() -> None:
            self.invitations.append(member)
            self._changed_by_other(member, "in")

        self._at_all_homes(member, lambda shard: shard.store(member), done)

    def kick(self, member: str) -> None:
        notices: list[tuple[str, str, int, int]] = []

        def kick(shard: Shard) -> None:
            notices.append((shard.shard, member, shard.kick(member), self.epoch))

        def done() -> None:
            self.notices_at += notices
            self._changed_by_other(member, "out")

        self._at_all_homes(member, kick, done)

    def go_on(self, _member: str = "") -> None:
        """Another process has had the answer of one home, and does it at the next."""
        work, self.unfinished = self.unfinished, None
        if work is not None:
            work()

    def _at_all_homes(
        self, member: str, work: Callable[[Shard], None], done: Callable[[], None]
    ) -> None:
        self.go_on()
        first, *others = (self.shards[home] for home in self.homes)
        work(first)
        if not others:
            done()
            return
        self._changed_by_other(member, "perhaps")

        ended = self.ended[member]

        def rest() -> None:
            for shard in others:
                work(shard)
            done()
            if self.ended[member] != ended:  # a call ran beside it, and either may have been first
                self._changed_by_other(member, "perhaps")

        self.unfinished = rest

    def send(self, _member: str = "") -> None:
        shard = self.shards[self.homes[0]]
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
        self.go_on()
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
    """Play a change: what happens before it, begun, prepared, copied, committed and after it.

    The process need not learn of each epoch, but it settles before the next step of the round.
    """

    async def main() -> MovingWorld:
        world = MovingWorld()
        before, begun, prepared, copied, committed, after = phases
        await world.play(before)
        world.begin()
        await world.play(begun)
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
    world = run([*joining, *sending], sending, sending, sending, sending, sending)
    assert set(world.delivered.values()) == {1}
    assert len(world.delivered) == 7
    assert not world.shards[OLD].subscribed


def test_a_group_without_members_leaves_nothing_at_either_home() -> None:
    """Neither subscription nor memory."""

    async def main() -> MovingWorld:
        world = MovingWorld()
        world.begin()
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


ARRIVALS = ("command", "reply", "request", "push")


def arrivals(*shards: str) -> Steps:
    """Everything that is on its way to and from these shards arrives; twice: what follows, too."""
    return [(verb, shard) for _ in range(2) for shard in shards for verb in ARRIVALS]


#: A member is stored, and its process has taken it over at the old home, but does not know it yet.
TAKEN_OVER: Steps = [
    *[("learn", ""), ("request", OLD), ("push", OLD)],
    *[("store", A), ("go_on", ""), ("invite", "")],
    *[("request", OLD), ("push", OLD), ("command", OLD)],
]


def test_a_kick_in_an_epoch_that_was_missed_counts_at_the_new_home() -> None:
    """It was done at the old home alone, by who knew more than the member's process did before."""
    joined = [("join", A), *arrivals(OLD)]
    world = run(joined, [("kick", A)], [("learn", ""), *arrivals(OLD)], [], [("send", "")], [])
    assert world.delivered == {}


def test_a_kick_while_a_member_is_taken_over_counts_at_both_homes() -> None:
    """After the take-over at the old home, before the subscription at the new one."""
    kicked = [("kick", A), ("go_on", ""), ("reply", OLD), *arrivals(NEW), ("push", OLD)]
    world = run([], [], [*TAKEN_OVER, *kicked], [], [("send", "")], [])
    assert world.delivered == {}


def test_a_kick_counts_that_comes_before_the_take_over_at_the_new_home() -> None:
    """It is subscribed there when it is kicked, and hears of that before the answer, or after."""
    subscribed = [("reply", OLD), ("request", NEW), ("push", NEW), ("command", NEW), ("reply", NEW)]
    kicked = [("kick", A), ("go_on", "")]
    for arriving in ("command", "reply", "push"), ("push", "command", "reply"):
        arrived = [(verb, NEW) for verb in arriving]
        world = run([], [], [*TAKEN_OVER, *subscribed, *kicked, *arrived], [], [("send", "")], [])
        assert world.delivered == {}


_members = st.sampled_from([A, A, B])
_calls = st.tuples(st.sampled_from(["join", "leave", "store", "kick", "send", "send"]), _members)
_finishing = st.just(("go_on", ""))
_own_calls = st.tuples(st.sampled_from(["join", "leave", "send", "send"]), _members)
_learning = st.just(("learn", ""))
_arrivals = st.tuples(
    st.sampled_from(["command", "reply", "request", "push"]), st.sampled_from(["", OLD, NEW])
)
_inbox = st.tuples(st.sampled_from(["invite", "notice"]), st.just(""))
_own_steps = st.lists(st.one_of(_own_calls, _own_calls, _learning, _arrivals), max_size=12)
_steps = st.lists(st.one_of(_calls, _calls, _learning, _arrivals, _inbox, _finishing), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[_own_steps] * 6))
def test_own_members_are_served_exactly_while_their_group_moves(phases: tuple[Steps, ...]) -> None:
    """A member for sure gets a message once, one who is out for sure never, others at most once."""
    run(*phases)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[_steps] * 6))
def test_members_are_served_exactly_while_their_group_moves(phases: tuple[Steps, ...]) -> None:
    """The same where other processes add and remove members."""
    run(*phases)
