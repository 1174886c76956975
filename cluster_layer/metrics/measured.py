"""How long calls take: a writer that measures, used only if there is a hook."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from cluster_layer.config import Config
from cluster_layer.metrics.hook import Metrics, outcome_of
from cluster_layer.names import inbox_name
from cluster_layer.routing import Routes
from cluster_layer.terms import USUAL, Terms
from cluster_layer.writer import TrailCell, Writer

T = TypeVar("T")


async def measured(
    metrics: Metrics | None,
    layer: str,
    verb: str,
    name: str,
    routes: Routes,
    work: Coroutine[Any, Any, T],
) -> T:
    """Do work for a name, and tell how long it took and how it ended."""
    begun = time.perf_counter()
    failure: BaseException | None = None
    try:
        return await work
    except BaseException as error:
        failure = error
        raise
    finally:
        shard = routes.shard_of(inbox_name(name))
        seconds = time.perf_counter() - begun
        if metrics is not None:
            metrics.observe(layer, verb, shard, outcome_of(failure), seconds)


class MeasuredWriter(Writer):
    """A writer whose confirmed messages are measured; the unconfirmed ones are only counted."""

    metrics: Metrics | None = None

    async def send(self, channel: str, body: bytes, cell: TrailCell, terms: Terms = USUAL) -> None:
        work = super().send(channel, body, cell, terms)
        await measured(self.metrics, self._prefix, "send", channel, self._links.routes, work)

    async def group_send(
        self, group: str, body: bytes, cell: TrailCell, terms: Terms = USUAL
    ) -> None:
        work = super().group_send(group, body, cell, terms)
        await measured(self.metrics, self._prefix, "group_send", group, self._links.routes, work)


def writer_class(config: Config) -> type[Writer]:
    """The writers of a layer: without a hook there is nothing that measures."""
    return Writer if config.metrics is None else MeasuredWriter
