"""The outbox itself: enqueue in the transaction of the change, relay, consume once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction

from examples.outbox.models import Outbox, Repeated
from topology.errors import ClusterError

BATCH = 50
LOOK_EVERY_S = 0.05
#: How long a message may take to be done before it is sent again: longer than a consumer needs, or
#: it is sent for nothing.
SEND_AGAIN_S = 2.0

Message = dict[str, Any]


def enqueue(channel: str, body: dict[str, Any]) -> None:
    """To be called in the transaction that changes what the message is about."""
    Outbox.objects.create(channel=channel, body=body)


async def relay() -> None:
    """Send what is not done, again and again, until it is; one relay or several."""
    layer = get_channel_layer()
    while True:
        batch = await sync_to_async(_take)(time.time())
        # What becomes of each does not matter here: only a consumer ends it.
        await layer.send_many(batch)
        await asyncio.sleep(LOOK_EVERY_S if len(batch) < BATCH else 0)


def _take(now: float) -> list[tuple[str, Message]]:
    """What is due; it will be due again later."""
    with transaction.atomic():
        rows = list(Outbox.objects.filter(done=False, send_at__lte=now).order_by("id")[:BATCH])
        for row in rows:
            row.send_at = now + SEND_AGAIN_S
            row.sent += 1
        Outbox.objects.bulk_update(rows, ["send_at", "sent"])
    return [(r.channel, {"type": "outbox", "id": r.id, "body": r.body}) for r in rows]


async def consume(channel: str, effect: Callable[[dict[str, Any]], None]) -> None:
    """Take messages, and have each one's effect once."""
    layer = get_channel_layer()
    while True:
        try:
            message = await layer.receive(channel)
        except ClusterError:
            await asyncio.sleep(LOOK_EVERY_S)  # it will be sent again
            continue
        await sync_to_async(_once)(message, effect)


def _once(message: Message, effect: Callable[[dict[str, Any]], None]) -> None:
    """The effect and the mark in one transaction: both happen, or neither."""
    with transaction.atomic():
        fresh = Outbox.objects.filter(id=message["id"], done=False).update(done=True)
        if fresh:
            effect(message["body"])
        else:
            Repeated.objects.create(outbox_id=message["id"])
