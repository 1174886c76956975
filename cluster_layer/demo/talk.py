"""Clients that talk in rooms on all shards, over WebSocket, while somebody else makes trouble."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from cluster_layer.demo.consumers import group_of
from cluster_layer.demo.ledger import Absence, Answer, Key, Ledger, Outage
from topology.errors import ClusterError

# Members of one room, on as many servers as there are.
MEMBERS_PER_ROOM = 4
JOIN_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 20.0
PAUSE_BETWEEN_WORDS_S = 0.05
_PAUSE_BETWEEN_ATTEMPTS_S = 0.3
# Whoever talks waits so long for its own words to come back: a slow machine is not flooded.
_ECHO_TIMEOUT_S = 0.5
_CLOSE_TIMEOUT_S = 2.0


class CheckFailed(ClusterError):
    """The check could not be carried out as planned, so it says nothing about the messages."""


# Phase, seconds that it takes, and the history so far.
Progress = Callable[[str, float, Ledger], None]


class Client:
    """One member; talks in its rooms one after another.

    With `returns`, it connects and joins again when its server is gone, and the ledger is told that
    it was away; without, that ends the check.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        returns: bool = False,
        pause_s: float = PAUSE_BETWEEN_WORDS_S,
    ) -> None:
        self.name = name
        self.url = url
        self.rooms: list[str] = []
        self.host = ""  # of the server that it is connected to
        self.thrown = 0  # throws of the dice that it has heard of
        self._returns = returns
        self._pause_s = pause_s
        self._joined: dict[str, str] = {}  # room -> shard
        self._all_joined = asyncio.Event()
        self._numbers = count(1)
        self._awaited: Key | None = None
        self._echo = asyncio.Event()
        self._connection: ClientConnection

    async def open(self) -> None:
        address = self.url.replace("http://", "ws://") + "/chat"
        # Not compressed: the check should load the layer, not the codec.
        self._connection = await connect(
            address,
            origin=self.url,  # type: ignore[arg-type]  # a plain string is what it takes
            compression=None,
            close_timeout=_CLOSE_TIMEOUT_S,
        )

    async def close(self) -> None:
        await self._connection.close()

    async def join_all(self, homes: Mapping[str, str]) -> None:
        """Returns when every room is joined; CheckFailed if one lives elsewhere than planned."""
        for room in self.rooms:
            await self._request("join", room)
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            await self._all_joined.wait()
        if any(homes[room] != shard for room, shard in self._joined.items()):
            raise CheckFailed(f"{self.name}: rooms live on {self._joined}, planned was {homes}")

    async def talk(self, ledger: Ledger, stop: asyncio.Event) -> None:
        for room in cycle(self.rooms):
            if stop.is_set():
                break
            await self._say(room, ledger)
            await asyncio.sleep(self._pause_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ECHO_TIMEOUT_S):
                    await self._echo.wait()
        # Last words: they arrive in order, so what comes late is seen before them.
        for room in self.rooms:
            await self._say(room, ledger)

    async def listen(self, ledger: Ledger) -> None:
        while True:
            with suppress(ConnectionClosed):
                async for text in self._connection:
                    self._take(json.loads(text), ledger)
            if not self._returns:
                raise CheckFailed(f"{self.name}: the server closed the connection")
            since = time.monotonic()
            await self._return(ledger, since)

    async def throw(self, room: str) -> None:
        """Ask for a throw of the dice, which a worker makes on another host."""
        await self._request("throw", room, number=next(self._numbers), **{"from": self.name})

    async def _return(self, ledger: Ledger, since: float) -> None:
        """Connects and joins until all rooms are joined; the talking goes on only then."""
        self._all_joined.clear()
        self._joined.clear()
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            while not self._all_joined.is_set():
                with suppress(WebSocketException, OSError, TimeoutError):
                    await self.open()
                    for room in self.rooms:
                        await self._request("join", room)
                    await self._join_again(ledger)
                await asyncio.sleep(0 if self._all_joined.is_set() else _PAUSE_BETWEEN_ATTEMPTS_S)
        ledger.record_absence(self.name, Absence(since, time.monotonic()))

    async def _join_again(self, ledger: Ledger) -> None:
        """Until all rooms are joined, or the connection is gone; a shard may be away, too."""
        async for text in self._connection:
            event = json.loads(text)
            if event["event"] == "refused" and event["do"] == "join":
                await asyncio.sleep(_PAUSE_BETWEEN_ATTEMPTS_S)
                await self._request("join", event["room"])
            else:
                self._take(event, ledger)
            if self._all_joined.is_set():
                break

    async def _say(self, room: str, ledger: Ledger) -> None:
        if self._returns:
            await self._all_joined.wait()
        number = next(self._numbers)
        self._awaited = (room, self.name, number)
        self._echo.clear()
        ledger.record_sent(self._awaited, time.monotonic())
        try:
            await self._request(
                "say", room, number=number, text=f"word {number}", **{"from": self.name}
            )
        except ConnectionClosed:
            # The listener finds that out, too, and says for how long.
            if not self._returns:
                raise

    async def _request(self, do: str, room: str, **more: Any) -> None:
        await self._connection.send(json.dumps({"do": do, "room": room, **more}))

    def _take(self, event: dict[str, Any], ledger: Ledger) -> None:
        if event["event"] == "said":
            key: Key = (event["room"], event["from"], event["number"])
            ledger.record_delivery(self.name, key)
            if key == self._awaited:
                self._echo.set()
        elif event["event"] == "joined":
            self.host = event["host"]
            self._joined[event["room"]] = event["shard"]
            if len(self._joined) == len(self.rooms):
                self._all_joined.set()
        elif event["event"] == "sent":
            ledger.record_answer((event["room"], self.name, event["number"]), Answer.SENT)
        elif event["event"] == "refused" and event["do"] == "say":
            answer = Answer.NOT_SENT if event["certain"] else Answer.UNKNOWN
            ledger.record_answer((event["room"], self.name, event["number"]), answer)
        elif event["event"] == "thrown":
            self.thrown += event["from"] == self.name
        elif event["event"] not in ("asked", "refused"):
            raise CheckFailed(f"{self.name}: unexpected {event}")


class Conversation:
    """Clients in rooms, and the ledger of what they said and heard."""

    def __init__(self, clients: Sequence[Client], homes: Mapping[str, str]) -> None:
        """`homes`: room -> the shard that it lives on at the beginning."""
        self.clients = clients
        self.homes = homes
        members = {room: [c.name for c in clients if room in c.rooms] for room in homes}
        self.ledger = Ledger(members, homes)
        self._stop = asyncio.Event()
        self._talks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Connected, joined and talking, until `end`."""
        try:
            await self._connect()
            async with asyncio.TaskGroup() as tasks:
                listeners = [tasks.create_task(one.listen(self.ledger)) for one in self.clients]
                async with asyncio.TaskGroup() as joins:
                    for client in self.clients:
                        joins.create_task(client.join_all(self.homes))
                self._talks = [
                    tasks.create_task(one.talk(self.ledger, self._stop)) for one in self.clients
                ]
                yield
                for task in [*listeners, *self._talks]:
                    task.cancel()
        finally:
            for client in self.clients:
                with suppress(AttributeError):  # one that never was connected
                    await client.close()

    async def pass_time(self, phase: str, seconds: float, progress: Progress) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            progress(phase, left, self.ledger)
            await asyncio.sleep(min(left, 0.1))

    async def end(self, outages: Sequence[Outage], progress: Progress) -> None:
        """The last words, and all that must still come; what has not come in time is lost."""
        self._stop.set()
        await asyncio.wait(self._talks)
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not self.ledger.is_settled(outages) and (left := deadline - time.monotonic()) > 0:
            progress("waiting for the last words", left, self.ledger)
            await asyncio.sleep(0.1)

    async def _connect(self) -> None:
        for client in self.clients:
            await client.open()


def spread_rooms(
    shards: Sequence[str], rooms_per_shard: int, home_of: Callable[[str], str]
) -> dict[str, str]:
    """Room -> shard, equally many on each shard; `home_of(group)` says where a group lives."""
    wanted = dict.fromkeys(shards, rooms_per_shard)
    homes: dict[str, str] = {}
    for number in count(1):
        room = f"room-{number}"
        shard = home_of(group_of(room))
        if wanted[shard] > 0:
            wanted[shard] -= 1
            homes[room] = shard
        if not any(wanted.values()):
            break
    return homes


def spread_clients(
    urls: Sequence[str], clients: int, homes: Mapping[str, str], **how: Any
) -> list[Client]:
    """Alternately on the URLs, so that neighbours in the list, and so in a room, are apart.

    `how`: what a Client takes.
    """
    made = [Client(f"client-{n}", urls[n % len(urls)], **how) for n in range(clients)]
    for index, room in enumerate(homes):
        for offset in range(min(MEMBERS_PER_ROOM, clients)):
            made[(index + offset) % clients].rooms.append(room)
    return [client for client in made if client.rooms]
