"""Requests break off in their middle."""

from chaos.environments.proxy import TcpProxy
from chaos.faults.base import LinkFault

REQUESTS = 8


class RequestHalved(LinkFault):
    """The shard sees half of what was written and then the end."""

    name = "request-halved"
    expects_unknown = True

    def strike_link(self, link: TcpProxy) -> None:
        link.halve_requests(REQUESTS)

    def struck(self, link: TcpProxy) -> int:
        return link.requests_halved
