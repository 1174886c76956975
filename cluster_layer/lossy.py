"""Resilience mode: mailboxes that drop a share of the messages on purpose (CONFIG drop_rate).

A site that stands this stands what a failing shard does to it. Counted as `dropped`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster_layer.buffers import Audience, Loss, Mailbox, Mailboxes, Parcel

if TYPE_CHECKING:
    from cluster_layer.config import Config

logger = logging.getLogger("cluster_layer")


class LossyMailboxes(Mailboxes):
    """Mailboxes in which each message is lost with the same chance, for each channel by itself."""

    def __init__(
        self,
        capacity_of: Callable[[str], int],
        lost: Callable[[Loss, int], None],
        rate: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(capacity_of, lost)
        self._rate = rate
        self._chance = chance

    def put(self, box: Mailbox, parcel: Parcel) -> bool:
        if self._chance() < self._rate:
            self._lost(Loss.DROPPED, 1)
            return True  # there is nothing to give back
        return super().put(box, parcel)

    def put_all(self, audience: Audience, parcel: Parcel) -> None:
        lucky = tuple(box for box in audience.boxes if self._chance() >= self._rate)
        if dropped := len(audience.boxes) - len(lucky):
            self._lost(Loss.DROPPED, dropped)
        super().put_all(Audience(lucky), parcel)


def mailboxes_of(config: Config, lost: Callable[[Loss, int], None]) -> Mailboxes:
    """The mailboxes of a process by its CONFIG."""
    if not config.drop_rate:
        return Mailboxes(config.capacity_of, lost)
    return LossyMailboxes(config.capacity_of, lost, config.drop_rate)


def warn(config: Config) -> None:
    """Nobody shall run in resilience mode without knowing."""
    if config.drop_rate:
        logger.critical(
            "CONFIG drop_rate is %g: this channel layer (prefix %r) DROPS %.3g %% OF ALL MESSAGES "
            "on purpose; take it out of the settings unless this is a test",
            config.drop_rate,
            config.prefix,
            100 * config.drop_rate,
        )
