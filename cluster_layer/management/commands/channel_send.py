"""``manage.py channel_send``: send messages to a channel or a group from a shell."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, Final

from channels.layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from django.core.management.base import BaseCommand, CommandError

from topology.errors import ClusterError

NOT_SENT: Final = 1
PERHAPS_SENT: Final = 2


class Command(BaseCommand):
    """Sends each message, in order, and stops at the first that fails."""

    help = (
        "Send messages to a channel, or with --group to a group. A message is a JSON object with "
        'a "type"; without one on the command line, each line of the standard input is one. '
        f"Exit code {NOT_SENT}: the message was not sent; {PERHAPS_SENT}: it may have been."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="of the channel or the group")
        parser.add_argument("message", nargs="*", help='for example \'{"type": "chat.message"}\'')
        parser.add_argument("--group", action="store_true", help="NAME is a group")
        parser.add_argument("--layer", default=DEFAULT_CHANNEL_LAYER, help="alias in the settings")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        layer = layer_of(options["layer"])
        send = layer.group_send if options["group"] else layer.send
        # Those of the command line are looked at before any of them is sent.
        messages: Iterable[dict[str, Any]] = [_message_of(text) for text in options["message"]]
        messages = messages or (_message_of(line) for line in sys.stdin if line.strip())
        count = asyncio.run(self._send_all(layer, send, options["name"], messages))
        self.stdout.write(f"sent: {count}")

    async def _send_all(
        self, layer: Any, send: Any, name: str, messages: Iterable[dict[str, Any]]
    ) -> int:
        count = 0
        try:
            await open_here(layer)
            for message in messages:
                await send(name, message)
                count += 1
        except ClusterError as error:
            code = NOT_SENT if error.definite else PERHAPS_SENT
            raise CommandError(f"after {count} messages: {error}", returncode=code) from None
        except CommandError as error:  # of a line that is no message
            raise CommandError(f"after {count} messages: {error}") from None
        finally:
            await close(layer)
        return count


def layer_of(alias: str) -> Any:
    """The layer of the settings. CommandError: there is none."""
    layer = get_channel_layer(alias)
    if layer is None:
        raise CommandError(f"CHANNEL_LAYERS has no {alias!r}")
    return layer


async def open_here(layer: Any) -> None:
    """Tell a layer that wants to know it that this loop lives."""
    if hasattr(layer, "open"):
        await layer.open()


async def close(layer: Any) -> None:
    """Close a layer of whatever kind."""
    if hasattr(layer, "close"):
        await layer.close()


def _message_of(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError as error:
        raise CommandError(f"this is no JSON ({error}): {text.strip():.100}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise CommandError(f'a message is a JSON object with a "type", not {text.strip():.100}')
    return message
