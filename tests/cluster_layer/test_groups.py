"""Members of a group, in every order in which a shard's answers and publications can arrive.

The shard is a fake that does what the scripts do, in Python. Commands, their replies, publications,
invitations and kick notices are all on their way until a strategy says that the next one arrives.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_layer import scripts
from cluster_layer.buffers import Audience, Mailbox, Parcel
from cluster_layer.controls import LogEntry
from cluster_layer.errors import ShardUnavailable
from cluster_layer.groups import Groups
from cluster_layer.keys import Keys
from cluster_layer.routing import Routes
from cluster_layer.scripts import Script
from topology.model import Shard
from topology.planning import initial_topology

GROUP = "g"
LATER = 1e9
STEADY = Routes(
    initial_topology([Shard("shard", "redis://127.0.0.1:1")], cluster="0123456789abcdef")
)

Membership = Literal["in", "out", "perhaps"]


class FakeShard:
    """A shard's groups, and everything that is on its way to and from one process.

    It is the link, its connection and the subscriber of that process in one.
    """

    def __init__(self) -> None:
        self.shard = "shard"
        self.keys = Keys("test", "0" * 16, "life", 0)
        self.routes = STEADY
        self.position = 0
        self.stored: set[str] = set()
        self.subscribed = False
        self.commands: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self.replies: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self.requests: deque[tuple[str, asyncio.Future[Any] | None]] = deque()
        self.pushes: deque[tuple[Any, ...]] = deque()
        self.down = False
        self.bodies: dict[int, int] = {}  # position -> number of the message

    @property
    def busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self.commands or self.replies or self.requests or self.pushes)

    # -- what Groups uses

    def to(self, _shard: str) -> FakeShard:
        return self

    async def ready(self) -> FakeShard:
        return self

    async def run(self, script: Script, _epoch: int, build: Callable[..., Any]) -> Any:
        _, (member, *_) = build(self.keys)
        if script is scripts.GROUP_QUIT:
            return await self._command(lambda: self.stored.discard(member))
        assert script is scripts.GROUP_JOIN
        return await self._command(lambda: self._join(member))

    async def subscribe(self, _groups: Sequence[str]) -> None:
        await self._request("subscribe")

    def unsubscribe(self, _group: str) -> None:
        self.requests.append(("unsubscribe", None))

    async def barrier(self) -> None:
        await self._request("ping")

    # -- what other processes do, at once

    def store(self, member: str) -> None:
        self.stored.add(member)
        self._publish("stored", member)

    def kick(self, member: str) -> int:
        self.stored.discard(member)
        return self._publish("leave", member)

    def send(self) -> tuple[int, set[str]]:
        """Position of the message, and the members to whom the sender sends by itself."""
        return self._publish("message", ""), set(self.stored)

    # -- the network

    def run_command(self) -> None:
        """The shard executes the next command; its reply is on its way."""
        if self.commands:
            work, future = self.commands.popleft()
            error = ShardUnavailable(self.shard, "down")
            self.replies.append((future, error if self.down else work()))

    def deliver_reply(self) -> None:
        if self.replies:
            future, reply = self.replies.popleft()
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def run_request(self) -> None:
        """The shard takes the next request on the subscription; what answers it is on its way."""
        if self.requests:
            verb, future = self.requests.popleft()
            if verb != "ping":
                self.subscribed = verb == "subscribe"
            if future is not None:
                self.pushes.append(("answer", future))

    def _join(self, member: str) -> list[int]:
        if member not in self.stored:
            return [0, self.position]
        self.stored.discard(member)
        return [1, self._publish("unstored", member)]

    def _publish(self, kind: str, member: str) -> int:
        self.position += 1
        if self.subscribed:
            self.pushes.append((kind, member, self.position))
        return self.position

    async def _command(self, work: Callable[[], Any]) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.commands.append((work, future))
        return await future

    async def _request(self, verb: str) -> None:
        future = asyncio.get_running_loop().create_future()
        self.requests.append((verb, future))
        await future


class World:
    """One process with its groups, the shard, another process, and what must be delivered."""

    def __init__(self) -> None:
        self.shard = FakeShard()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.delivered: Counter[tuple[str, int]] = Counter()
        self.expected: dict[tuple[str, int], Membership] = {}
        self.membership: dict[str, Membership] = {}
        self.own: dict[str, asyncio.Task[Any]] = {}
        self.ended: Counter[str] = Counter()  # own calls, by member
        self.disturbed: set[str] = set()  # members whose own call runs beside another's change
        self.invitations: deque[str] = deque()
        self.notices: deque[tuple[str, int]] = deque()
        self.boxes = {name: Mailbox(name, 10**6, None) for name in ("p.1!a", "p.1!b")}
        self.groups = Groups(
            links=self.shard,  # type: ignore[arg-type]
            subscriber_of=lambda _: self.shard,  # type: ignore[arg-type,return-value]
            put_all=self._put_all,
            context_of=lambda _: b"",
            expiry_ms=60_000,
            in_order=lambda _: self.shard.barrier(),
            spawn=self._spawn,
        )

    @property
    def sent(self) -> set[int]:
        """Positions of all messages."""
        return {position for _, position in self.expected}

    # -- calls of this process

    def join(self, member: str) -> None:
        if member not in self.own:
            if self.membership.get(member, "out") == "out":
                self.membership[member] = "perhaps"
            self._call(member, self.groups.join(GROUP, self.boxes[member], LATER), "in")

    def leave(self, member: str) -> None:
        if member not in self.own:
            if self.membership.get(member, "out") == "in":
                self.membership[member] = "perhaps"
            self._call(member, self.groups.leave(GROUP, self.boxes[member]), "out")

    # -- calls of the other process

    def store(self, member: str) -> None:
        self.shard.store(member)
        self.invitations.append(member)
        self._changed_by_other(member, "in")

    def kick(self, member: str) -> None:
        self.notices.append((member, self.shard.kick(member)))
        self._changed_by_other(member, "out")

    def send(self, _member: str = "") -> None:
        position, direct = self.shard.send()
        for member in self.boxes:
            self.expected[member, position] = self.membership.get(member, "out")
            if member in direct:
                self.delivered[member, position] += 1

    # -- arrivals

    def push(self, _member: str = "") -> None:
        if not self.shard.pushes:
            return
        kind, *details = self.shard.pushes.popleft()
        if kind == "answer":
            (future,) = details
            if not future.done():
                future.set_result(None)
        elif kind == "message":
            self.groups.fan_out("shard", GROUP, details[1], str(details[1]).encode(), LATER)
        else:
            member, position = details
            self.groups.on_change("shard", LogEntry(position, 1, kind, GROUP, member))

    def invite(self, _member: str = "") -> None:
        if self.invitations:
            box = self.boxes[self.invitations.popleft()]
            self._spawn(self.groups.accept(GROUP, box, LATER))

    def notice(self, _member: str = "") -> None:
        if self.notices:
            member, position = self.notices.popleft()
            kick = LogEntry(position, 1, "kick", GROUP, member)
            self.groups.on_kick("shard", kick, "life")

    def command(self, _member: str = "") -> None:
        self.shard.run_command()

    def reply(self, _member: str = "") -> None:
        self.shard.deliver_reply()

    def request(self, _member: str = "") -> None:
        self.shard.run_request()

    # -- running

    async def play(self, steps: list[tuple[str, str]]) -> None:
        for verb, member in steps:
            getattr(self, verb)(member)
            await settle()

    async def drain(self) -> None:
        """Everything arrives that is on its way, until nothing happens any more."""
        await settle()
        while self.shard.busy or self.invitations or self.notices:
            for verb in ("command", "reply", "request", "push", "invite", "notice"):
                getattr(self, verb)()
                await settle()
        assert not self.tasks, "a call never ended"

    def check(self) -> None:
        for key, membership in self.expected.items():
            least, most = {"in": (1, 1), "out": (0, 0), "perhaps": (0, 1)}[membership]
            count = self.delivered[key]
            assert least <= count <= most, f"{key} sent while {membership}: {count} times"

    def _call(self, member: str, work: Coroutine[Any, Any, None], after: Membership) -> None:
        task = self._spawn(work)
        self.own[member] = task
        self.disturbed.discard(member)

        def done(_: asyncio.Task[Any]) -> None:
            del self.own[member]
            self.ended[member] += 1
            self.membership[member] = "perhaps" if member in self.disturbed else after

        task.add_done_callback(done)

    def _changed_by_other(self, member: str, after: Membership) -> None:
        self.membership[member] = "perhaps" if member in self.own else after
        self.disturbed.add(member)

    def _put_all(self, audience: Audience, parcel: Parcel) -> None:
        for box in audience.boxes:
            self.delivered[box.name, int(parcel.body)] += 1

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


async def settle() -> None:
    """Let every task go on until it waits for the network."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(steps: list[tuple[str, str]]) -> World:
    async def main() -> World:
        world = World()
        await world.play(steps)
        await world.drain()
        world.send()
        await world.drain()
        world.check()
        return world

    return asyncio.run(main())


A, B = "p.1!a", "p.1!b"
ANSWERED = [(verb, "") for verb in ("request", "push", "command", "reply")]


def joined(member: str) -> list[tuple[str, str]]:
    return [("join", member), *ANSWERED]


def test_a_member_gets_every_message_once() -> None:
    """From the acknowledged join on."""
    world = run([*joined(A), ("send", ""), ("send", "")])
    assert world.delivered == {(A, 1): 1, (A, 2): 1, (A, 3): 1}


def test_a_member_gets_what_was_published_before_its_leave() -> None:
    """And nothing after it, though the group lives on here with another member."""
    world = run([*joined(A), *joined(B), ("send", ""), ("leave", A), *ANSWERED * 2, ("send", "")])
    assert (world.delivered[A, 1], world.delivered[A, 2]) == (1, 0)
    assert (world.delivered[B, 1], world.delivered[B, 2]) == (1, 1)


def test_a_group_without_members_is_unsubscribed() -> None:
    """A process hears nothing of groups in which it has no member."""
    world = run([*joined(A), ("leave", A), *ANSWERED * 2])
    assert not world.shard.subscribed
    assert len(world.groups) == 0


def test_a_member_that_two_processes_added_gets_one_copy() -> None:
    """Served by the senders from stored to unstored, by the fan-out before and after."""
    steps = [*joined(A), ("send", ""), ("store", A), ("send", ""), ("invite", "")]
    world = run([*steps, ("push", ""), ("send", ""), *ANSWERED * 3, ("send", "")])
    assert world.delivered == {(A, n): 1 for n in world.sent}


def test_a_kick_comes_in_order_with_the_messages() -> None:
    """What was published before it is delivered, what comes after is not."""
    world = run([*joined(A), ("send", ""), ("kick", A), ("send", "")])
    assert world.delivered == {(A, 1): 1}


def test_what_was_published_before_a_join_is_not_for_the_member() -> None:
    """Though it arrives afterwards, because another member had the group subscribed."""
    world = run([*joined(B), ("send", ""), ("join", A), ("command", ""), ("reply", "")])
    assert world.delivered[A, 1] == 0
    assert world.delivered[B, 1] == 1


def test_a_join_that_fails_leaves_no_member() -> None:
    """ShardUnavailable: it is not a member by this call."""

    async def main() -> None:
        world = World()
        world.shard.down = True
        task = asyncio.ensure_future(world.groups.join(GROUP, world.boxes[A], LATER))
        await world.drain()
        with pytest.raises(ShardUnavailable):
            await task
        assert len(world.groups) == 0
        assert world.boxes[A].groups == set()
        await world.drain()
        assert not world.shard.subscribed

    asyncio.run(main())


@pytest.mark.parametrize("after", range(4))
def test_a_join_that_is_cancelled_leaves_nothing(after: int) -> None:
    """Neither a member nor a subscription, at whichever moment it was cancelled."""

    async def main() -> None:
        world = World()
        task = asyncio.ensure_future(world.groups.join(GROUP, world.boxes[A], LATER))
        await world.play(ANSWERED[:after])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.drain()
        assert len(world.groups) == 0
        assert not world.shard.subscribed

    asyncio.run(main())


def test_an_invitation_that_comes_late_brings_nobody_back() -> None:
    """Who has been kicked, or has left, stays out, though another process had stored it before."""
    run([("store", A), ("kick", A)])
    run([("store", A), ("leave", A)])


@pytest.mark.parametrize(("life", "stays"), [("life", True), ("next", False)])
def test_a_join_counts_in_the_life_in_which_it_was_answered(life: str, stays: bool) -> None:
    """Also if the subscription comes to that life later, and learns from its log of an old kick."""

    async def main() -> None:
        world = World()
        world.shard.position = 5
        await world.play(joined(A))
        world.groups.on_incarnation(world.shard.shard, life)
        world.groups.on_change("shard", LogEntry(4, 1, "leave", GROUP, A))
        assert len(world.groups) == stays

    asyncio.run(main())


_members = st.sampled_from([A, A, B])
_calls = st.tuples(st.sampled_from(["join", "leave", "store", "kick", "send", "send"]), _members)
_own_calls = st.tuples(st.sampled_from(["join", "leave", "send", "send"]), _members)
_moderation = st.tuples(st.sampled_from(["join", "kick", "send"]), _members)
_arrivals = st.tuples(
    st.sampled_from(["command", "reply", "request", "push", "push", "invite", "notice"]),
    st.just(""),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(_own_calls, _arrivals, _arrivals), max_size=50))
def test_own_members_are_served_exactly_whatever_arrives_first(
    steps: list[tuple[str, str]],
) -> None:
    """A member for sure gets a message once, one who is out for sure never, others at most once."""
    run(steps)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(_moderation, _arrivals, _arrivals), max_size=50))
def test_kicks_are_exact_whatever_arrives_first(steps: list[tuple[str, str]]) -> None:
    """The same where another process removes members, who may join again at once."""
    run(steps)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(_calls, _arrivals, _arrivals), max_size=50))
def test_members_are_served_exactly_whatever_arrives_first(steps: list[tuple[str, str]]) -> None:
    """A member for sure gets a message once, one who is out for sure never, others at most once."""
    run(steps)
