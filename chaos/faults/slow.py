"""Links that work, but badly."""

from chaos.environments.proxy import TcpProxy
from chaos.faults.base import LinkFault

DELAY_S = 0.05
JITTER_S = 0.15
SLICE_BYTES = 7


class Latency(LinkFault):
    """Every read takes longer, each by another time."""

    name = "latency"

    def strike_link(self, link: TcpProxy) -> None:
        link.delay(DELAY_S, jitter_s=JITTER_S)


class Sliced(LinkFault):
    """Bytes arrive a few at a time, so that every boundary falls between two reads."""

    name = "sliced"

    def strike_link(self, link: TcpProxy) -> None:
        link.slice_bytes(SLICE_BYTES)
