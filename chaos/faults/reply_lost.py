"""Requests are executed, and their replies never arrive."""

from chaos.environments.proxy import TcpProxy
from chaos.faults.base import LinkFault

REPLIES = 6


class ReplyLost(LinkFault):
    """The connection is reset after the shard has executed the request."""

    name = "reply-lost"
    expects_unknown = True

    def strike_link(self, link: TcpProxy) -> None:
        link.lose_next_reply(b"chaos.message", REPLIES)

    def struck(self, link: TcpProxy) -> int:
        return link.replies_lost
