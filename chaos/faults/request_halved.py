"""Requests break off in their middle."""

from typing import Any

from chaos.faults.base import LinkFault

REQUESTS = 8


class RequestHalved(LinkFault):
    """The shard sees half of what was written and then the end."""

    name = "request-halved"
    expects_unknown = True

    def strike_link(self, link: Any) -> None:
        link.halve_requests(REQUESTS)

    def struck(self, link: Any) -> int:
        count: int = link.requests_halved
        return count
