"""Many messages in one call: in order for each channel, all channels at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from cluster_layer.terms import Terms
from cluster_layer.writer import TrailCell, Writer
from topology.errors import ClusterError

MAX_CHANNELS_AT_ONCE: Final = 1_000


async def send_many(
    writer: Writer, batch: Sequence[tuple[str, bytes]], cell: TrailCell, terms: Terms
) -> list[ClusterError | None]:
    """Send (channel, encoded message), and say for each what became of it; None: it was sent."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, (channel, _) in enumerate(batch):
        numbers[channel].append(number)
    outcomes: list[ClusterError | None] = [None] * len(batch)

    async def send_to(channel: str) -> None:
        for number in numbers[channel]:
            try:
                await writer.send(channel, batch[number][1], cell, terms)
            except ClusterError as error:
                outcomes[number] = error

    channels = list(numbers)
    for start in range(0, len(channels), MAX_CHANNELS_AT_ONCE):
        await asyncio.gather(*map(send_to, channels[start : start + MAX_CHANNELS_AT_ONCE]))
    return outcomes
