"""A worker process of a layer with a defect: ``... mutant_worker MUTANT ORDERS.json``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from chaos.environments import worker
from cluster_layer import connection, links
from cluster_layer.errors import DeliveryUnknown
from cluster_layer.order import Trail


def resend() -> None:
    """A write of unknown outcome is sent again, as redis-py does by default."""
    once = links.Link.run

    async def run(self: links.Link, *arguments: Any) -> Any:
        try:
            return await once(self, *arguments)
        except DeliveryUnknown:
            return await once(self, *arguments)

    links.Link.run = run  # type: ignore[method-assign,assignment]


def no_incarnation() -> None:
    """All lives of a server use the same keys, as those of channels_redis do."""
    connection.incarnation_of = lambda _run_id, _replication_id: "0" * 16  # type: ignore[assignment,attr-defined]


def no_order() -> None:
    """Writes carry no marks of what their task wrote before."""

    def unmarked(_trail: Trail, *_arguments: Any, **_more: Any) -> None:
        return None

    Trail.marks = unmarked  # type: ignore[method-assign,assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    "resend": resend,
    "no-incarnation": no_incarnation,
    "no-order": no_order,
}


if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    worker.main()
