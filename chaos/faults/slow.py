"""Links that work, but badly."""

from __future__ import annotations

from typing import Any

from chaos.faults.base import LinkFault

DELAY_S = 0.05
JITTER_S = 0.15
SLICE_BYTES = 7
BYTES_PER_S = 20_000.0


class Latency(LinkFault):
    """Every read takes longer, each by another time."""

    name = "latency"

    def strike_link(self, link: Any) -> None:
        link.delay(DELAY_S, jitter_s=JITTER_S)


class Bandwidth(LinkFault):
    """Few bytes per second pass each way, so that everything queues up."""

    name = "bandwidth"

    def strike_link(self, link: Any) -> None:
        link.throttle(BYTES_PER_S)


class Sliced(LinkFault):
    """Bytes arrive a few at a time, so that every boundary falls between two reads."""

    name = "sliced"

    def strike_link(self, link: Any) -> None:
        link.slice_bytes(SLICE_BYTES)
