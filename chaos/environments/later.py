"""In a process: it writes what a later version of the layer may write.

docs/wire-format.md allows later writers of version 1 further fields at the end of an envelope, and
controls that are not known yet. Readers must take the former and drop the latter.
"""

from __future__ import annotations

import msgpack

from cluster_layer import envelope, writer
from cluster_layer.envelope import Marks
from cluster_layer.names import is_process_specific
from cluster_layer.terms import USUAL, Terms
from cluster_layer.writer import TrailCell, Writer

FIELDS = ("a field that nobody knows", {"depth": [1, 2.5, None]})
CONTROL_EVERY = 25  # messages


def become_later() -> None:
    """From now on, for every layer of this process."""
    send, sent = Writer.send, 0

    def encode(
        kind: int,
        ttl_ms: int,
        channel: str | None,
        marks: Marks | None,
        body: bytes,
        exclude: frozenset[str] = frozenset(),
        epoch: int = 0,
    ) -> bytes:
        known = msgpack.unpackb(envelope.encode(kind, ttl_ms, channel, marks, body))
        data: bytes = msgpack.packb([*known, sorted(exclude) or None, epoch, *FIELDS])
        return data

    async def send_with_controls(
        self: Writer, channel: str, body: bytes, cell: TrailCell, terms: Terms = USUAL
    ) -> None:
        nonlocal sent
        sent += 1
        if is_process_specific(channel) and sent % CONTROL_EVERY == 0:
            control = {"op": "a control that nobody knows", "group": "x"}
            await self._tell(channel, control)
        await send(self, channel, body, cell, terms)

    writer.encode = encode  # type: ignore[attr-defined]
    Writer.send = send_with_controls  # type: ignore[method-assign]
