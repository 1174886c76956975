"""What `runworker chat-dice` runs: it throws dice for members, whichever host they are on."""

import logging
import secrets
from typing import Any

from channels.consumer import AsyncConsumer

from cluster_layer.demo.consumers import group_of
from topology.errors import ClusterError

_log = logging.getLogger(__name__)


class DiceConsumer(AsyncConsumer):
    """One throw for each message; the whole room hears the result."""

    async def dice_throw(self, message: dict[str, Any]) -> None:
        """Somebody asked for a throw."""
        thrown = {
            "type": "chat.thrown",
            "room": message["room"],
            "from": message["from"],
            "number": message["number"],
            "dice": 1 + secrets.randbelow(6),
        }
        try:
            await self.channel_layer.group_send(group_of(message["room"]), thrown)
        except ClusterError as error:
            _log.warning("a throw for %s is lost: %s", message["room"], error)
