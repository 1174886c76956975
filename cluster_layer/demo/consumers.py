"""One browser's connection: it joins rooms, talks in them, and is told what became of its words."""

import os
import re
import socket
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from topology.errors import ClusterError

_ROOM = re.compile(r"[a-z0-9-]{1,40}")
_LONGEST_TEXT = 2_000
_HOST = socket.gethostname()

#: The normal channel that workers take requests for a throw of the dice from.
DICE = "chat-dice"


def group_of(room: str) -> str:
    """The group that a room's members are in."""
    return f"chat.{room}"


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """Takes {"do": "join" | "leave" | "say" | "throw", "room": ...}, answers {"event": ...}.

    A shard that is away costs a request, never the connection: the answer is then `refused`, with
    `certain` false when the words may have been delivered all the same.
    """

    async def connect(self) -> None:
        self.rooms: set[str] = set()
        await self.accept()

    async def disconnect(self, code: int) -> None:
        for room in self.rooms:
            try:
                await self.channel_layer.group_discard(group_of(room), self.channel_name)
            except ClusterError:
                # Whoever does not answer now has forgotten this member, or will before long.
                continue

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        actions = {"join": self.join, "leave": self.leave, "say": self.say, "throw": self.throw}
        request = content if isinstance(content, dict) else {}
        room, action = request.get("room"), actions.get(str(request.get("do")))
        if action is None or not isinstance(room, str) or not _ROOM.fullmatch(room):
            await self.send_json({"event": "misunderstood", "request": content})
            return
        try:
            await action(room, request)
        except ClusterError as error:
            await self.send_json(
                {
                    "event": "refused",
                    "do": request["do"],
                    "room": room,
                    "number": request.get("number"),
                    "certain": error.definite,
                    "why": str(error),
                }
            )

    async def join(self, room: str, request: dict[str, Any]) -> None:
        await self.channel_layer.group_add(group_of(room), self.channel_name)
        self.rooms.add(room)
        shard = await self.channel_layer.locate(group_of(room))
        await self.send_json({"event": "joined", "room": room, "shard": shard, "host": _HOST})

    async def leave(self, room: str, request: dict[str, Any]) -> None:
        await self.channel_layer.group_discard(group_of(room), self.channel_name)
        self.rooms.discard(room)
        await self.send_json({"event": "left", "room": room})

    async def say(self, room: str, request: dict[str, Any]) -> None:
        number = request.get("number")
        message = {
            "type": "chat.said",
            "room": room,
            "from": str(request.get("from", ""))[:40],
            "member": self.channel_name,
            "number": number,
            "text": str(request.get("text", ""))[:_LONGEST_TEXT],
            "server": os.getpid(),
        }
        await self.channel_layer.group_send(group_of(room), message)
        await self.send_json({"event": "sent", "room": room, "number": number})

    async def throw(self, room: str, request: dict[str, Any]) -> None:
        number = request.get("number")
        asked = {
            "type": "dice.throw",
            "room": room,
            "from": str(request.get("from", ""))[:40],
            "number": number,
        }
        await self.channel_layer.send(DICE, asked)
        await self.send_json({"event": "asked", "room": room, "number": number})

    async def chat_thrown(self, message: dict[str, Any]) -> None:
        """A worker threw the dice for somebody in a room that this connection is in."""
        await self.send_json({**message, "event": "thrown"})

    async def chat_said(self, message: dict[str, Any]) -> None:
        """Something was said in a room that this connection is in."""
        await self.send_json({**message, "event": "said"})
