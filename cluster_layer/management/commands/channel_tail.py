"""``manage.py channel_tail``: show what goes through groups, or take from a channel."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from channels.layers import DEFAULT_CHANNEL_LAYER
from django.core.management.base import BaseCommand, CommandError

from cluster_layer.management.commands.channel_send import close, layer_of, open_here
from topology.errors import ClusterError


class Command(BaseCommand):
    """Joins the groups as one more member; a message of a normal channel goes to one reader."""

    help = (
        "Show the messages of groups, one JSON object a line, until Ctrl-C. With --take the names "
        "are those of normal channels, and what is shown is taken: no other reader gets it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="+", help="of a group; with --take, of a channel")
        parser.add_argument("--take", action="store_true", help="take from normal channels")
        parser.add_argument("--count", type=int, help="stop after so many messages")
        parser.add_argument("--timeout", type=float, help="stop when none came for so many seconds")
        parser.add_argument("--layer", default=DEFAULT_CHANNEL_LAYER, help="alias in the settings")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        layer = layer_of(options["layer"])
        tail = self._tail(layer, options["name"], options)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(tail)
        except ClusterError as error:
            raise CommandError(str(error)) from None
        except ExceptionGroup as errors:  # of the readers
            unexpected = errors.split(ClusterError)[1]
            raise (unexpected or CommandError(str(errors.exceptions[0]))) from None

    async def _tail(self, layer: Any, names: Sequence[str], options: dict[str, Any]) -> None:
        shown = 0
        queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(maxsize=1)
        try:
            await open_here(layer)
            channels = [await self._channel_for(layer, name, options["take"]) for name in names]
            self.stderr.write(f"listening to {', '.join(names)}")
            async with asyncio.TaskGroup() as tasks:
                readers = [
                    tasks.create_task(_read(layer, name, channel, queue))
                    for name, channel in zip(names, channels, strict=True)
                ]
                while options["count"] is None or shown < options["count"]:
                    try:
                        async with asyncio.timeout(options["timeout"]):
                            name, message = await queue.get()
                    except TimeoutError:
                        break
                    line = {"from": name, "message": message}
                    self.stdout.write(json.dumps(line, default=_as_base64))
                    self.stdout.flush()
                    shown += 1
                for reader in readers:
                    reader.cancel()
        finally:
            await close(layer)

    async def _channel_for(self, layer: Any, name: str, take: bool) -> str:
        if take:
            return name
        channel: str = await layer.new_channel("tail")
        await layer.group_add(name, channel)
        return channel


async def _read(
    layer: Any, name: str, channel: str, queue: asyncio.Queue[tuple[str, dict[str, Any]]]
) -> None:
    while True:
        await queue.put((name, await layer.receive(channel)))


def _as_base64(value: object) -> str:
    """JSON has no bytes."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{value!r} is no part of a message")
