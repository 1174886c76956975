"""Requests are executed, and their replies never arrive."""

from typing import Any

from chaos.faults.base import LinkFault

REPLIES = 6


class ReplyLost(LinkFault):
    """The connection is reset after the shard has executed the request."""

    name = "reply-lost"
    expects_unknown = True

    def strike_link(self, link: Any) -> None:
        link.lose_next_reply(b"chaos.message", REPLIES)

    def struck(self, link: Any) -> int:
        count: int = link.replies_lost
        return count
