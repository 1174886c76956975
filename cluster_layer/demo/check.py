"""The demo without a person: clients talk in rooms on all shards while one of them is killed."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from cluster_layer.demo.consumers import group_of
from cluster_layer.demo.ledger import Answer, Key, Ledger, Outage, ShardAccount, is_passed
from cluster_layer.demo.site import Site
from cluster_layer.demo.status import status_of
from topology.errors import ClusterError

# Members of one room; half of them on each server.
_MEMBERS_PER_ROOM = 4
# A shard that is back must serve all its rooms again within this time.
_HEAL_LIMIT_S = 5.0
_JOIN_TIMEOUT_S = 30.0
_SETTLE_TIMEOUT_S = 20.0
_PAUSE_BETWEEN_WORDS_S = 0.05


class CheckFailed(ClusterError):
    """The check could not be carried out as planned, so it says nothing about the messages."""


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """How much, how long: a third of the time before the kill, a sixth down, the rest after."""

    seconds: float = 20.0
    rooms_per_shard: int = 8
    clients_per_server: int = 6

    @property
    def before_s(self) -> float:
        return self.seconds / 3

    @property
    def down_s(self) -> float:
        return self.seconds / 6

    @property
    def after_s(self) -> float:
        """Longer than healing may take: messages after that time are what is judged."""
        return max(self.seconds / 2, _HEAL_LIMIT_S + 2.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    accounts: Sequence[ShardAccount]
    outage: Outage
    strangers: int
    counted_losses: Counter[str]  # by the reason that the layers of all servers gave

    @property
    def passed(self) -> bool:
        return is_passed(self.accounts, self.outage, self.strangers)


# Phase, seconds that it takes, and the history so far.
Progress = Callable[[str, float, Ledger], None]


class _Client:
    """One member on one server; talks in its rooms one after another."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.rooms: list[str] = []
        self._joined: dict[str, str] = {}  # room -> shard
        self._all_joined = asyncio.Event()
        self._numbers = count(1)
        self._connection: ClientConnection

    async def open(self, stack: AsyncExitStack) -> None:
        address = self.url.replace("http://", "ws://") + "/chat"
        # Not compressed: the check should load the layer, not the codec.
        connecting = connect(address, origin=self.url, compression=None)  # type: ignore[arg-type]
        self._connection = await stack.enter_async_context(connecting)

    async def join_all(self, homes: dict[str, str]) -> None:
        """Returns when every room is joined; CheckFailed if one lives elsewhere than planned."""
        for room in self.rooms:
            await self._request("join", room)
        async with asyncio.timeout(_JOIN_TIMEOUT_S):
            await self._all_joined.wait()
        if any(homes[room] != shard for room, shard in self._joined.items()):
            raise CheckFailed(f"{self.name}: rooms live on {self._joined}, planned was {homes}")

    async def talk(self, ledger: Ledger, stop: asyncio.Event) -> None:
        for room in cycle(self.rooms):
            if stop.is_set():
                break
            await self._say(room, ledger)
            await asyncio.sleep(_PAUSE_BETWEEN_WORDS_S)
        # Last words: they arrive in order, so what comes late is seen before them.
        for room in self.rooms:
            await self._say(room, ledger)

    async def listen(self, ledger: Ledger) -> None:
        async for text in self._connection:
            self._take(json.loads(text), ledger)
        raise CheckFailed(f"{self.name}: the server closed the connection")

    async def _say(self, room: str, ledger: Ledger) -> None:
        number = next(self._numbers)
        ledger.record_sent((room, self.name, number), time.monotonic())
        await self._request(
            "say", room, number=number, text=f"word {number}", **{"from": self.name}
        )

    async def _request(self, do: str, room: str, **more: Any) -> None:
        await self._connection.send(json.dumps({"do": do, "room": room, **more}))

    def _take(self, event: dict[str, Any], ledger: Ledger) -> None:
        if event["event"] == "said":
            key: Key = (event["room"], event["from"], event["number"])
            ledger.record_delivery(self.name, key)
        elif event["event"] == "joined":
            self._joined[event["room"]] = event["shard"]
            if len(self._joined) == len(self.rooms):
                self._all_joined.set()
        elif event["event"] == "sent":
            ledger.record_answer((event["room"], self.name, event["number"]), Answer.SENT)
        elif event["event"] == "refused" and event["do"] == "say":
            answer = Answer.NOT_SENT if event["certain"] else Answer.UNKNOWN
            ledger.record_answer((event["room"], self.name, event["number"]), answer)
        else:
            raise CheckFailed(f"{self.name}: unexpected {event}")


async def run_check(site: Site, plan: CheckPlan, progress: Progress) -> Outcome:
    """Talk, kill a shard, bring it back blank, talk on, and account for every message.

    CheckFailed when a connection to a server breaks, or a room cannot be joined.
    """
    try:
        return await _carry_out(site, plan, progress)
    except* (ClusterError, WebSocketException, TimeoutError, OSError) as group:
        raise CheckFailed("; ".join(f"{e!r}" for e in group.exceptions)) from group


async def _carry_out(site: Site, plan: CheckPlan, progress: Progress) -> Outcome:
    homes = _rooms(site, plan)
    clients = _clients(site, plan, homes)
    members = {room: [c.name for c in clients if room in c.rooms] for room in homes}
    ledger = Ledger(members, homes)
    stop = asyncio.Event()
    async with AsyncExitStack() as connections:
        for client in clients:
            await client.open(connections)
        async with asyncio.TaskGroup() as tasks:
            listeners = [tasks.create_task(client.listen(ledger)) for client in clients]
            async with asyncio.TaskGroup() as joins:
                for client in clients:
                    joins.create_task(client.join_all(homes))
            talks = [tasks.create_task(client.talk(ledger, stop)) for client in clients]
            outage = await _make_outage(site, plan, ledger, progress)
            stop.set()
            await asyncio.wait(talks)
            await _settle(ledger, outage, progress)
            for listener in listeners:
                listener.cancel()
    losses: Counter[str] = Counter()
    for url in site.urls:
        losses.update((await asyncio.to_thread(status_of, url))["lost"])
    return Outcome(ledger.accounts(outage), outage, ledger.strangers, losses)


def _rooms(site: Site, plan: CheckPlan) -> dict[str, str]:
    """Room -> shard, equally many on each shard."""
    wanted = dict.fromkeys(site.shards, plan.rooms_per_shard)
    homes: dict[str, str] = {}
    for number in count(1):
        room = f"room-{number}"
        shard = site.topology.shard_of(group_of(room)).id
        if wanted[shard] > 0:
            wanted[shard] -= 1
            homes[room] = shard
        if not any(wanted.values()):
            break
    return homes


def _clients(site: Site, plan: CheckPlan, homes: dict[str, str]) -> list[_Client]:
    """Alternately on the servers, so that neighbours in the list, and so in a room, are apart."""
    total = plan.clients_per_server * len(site.urls)
    clients = [_Client(f"client-{n}", site.urls[n % len(site.urls)]) for n in range(total)]
    for index, room in enumerate(homes):
        for offset in range(min(_MEMBERS_PER_ROOM, total)):
            clients[(index + offset) % total].rooms.append(room)
    return [client for client in clients if client.rooms]


async def _make_outage(site: Site, plan: CheckPlan, ledger: Ledger, progress: Progress) -> Outage:
    shard = sorted(site.shards)[len(site.shards) // 2]
    server = site.shards[shard]
    await _pass_time("all shards up", plan.before_s, ledger, progress)
    killed_at = time.monotonic()
    await asyncio.to_thread(server.kill)
    site.write_state()
    await _pass_time(f"{shard} killed with -9", plan.down_s, ledger, progress)
    await asyncio.to_thread(server.start)
    back_at = time.monotonic()
    site.write_state()
    await _pass_time(f"{shard} back, blank", plan.after_s, ledger, progress)
    site.raise_if_a_server_ended()
    return Outage(shard, killed_at, back_at, _HEAL_LIMIT_S)


async def _pass_time(phase: str, seconds: float, ledger: Ledger, progress: Progress) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        progress(phase, left, ledger)
        await asyncio.sleep(min(left, 0.1))


async def _settle(ledger: Ledger, outage: Outage, progress: Progress) -> None:
    """Wait for all that must still come; what has not come at the deadline is lost."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    while not ledger.is_settled(outage) and (left := deadline - time.monotonic()) > 0:
        progress("waiting for the last words", left, ledger)
        await asyncio.sleep(0.1)
