"""What a metrics system has to do for the layer, and how CONFIG ``metrics`` names one.

Counters cost nothing where messages pass: the layer counts anyway, and whoever collects reads
`LayerReading.stats`. Only the durations of calls are measured, and only if there is a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol, runtime_checkable

from cluster_layer.buffers import Loss
from topology.errors import ClusterError

#: Names for CONFIG metrics -> module and class; its library comes with cluster-layer[metrics].
KNOWN: Final = {
    "prometheus": ("cluster_layer.metrics.prometheus", "PrometheusMetrics"),
    "opentelemetry": ("cluster_layer.metrics.open_telemetry", "the_hook"),
}

#: Upper bounds of a histogram's buckets, seconds: from an idle shard to the default timeout.
BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

#: Counters of each shard in `stats()` -> what they count.
SHARD_COUNTERS: Final = {
    "sent": "Messages appended to inboxes and queues",
    "published": "Group messages published",
    "received": "Messages that arrived, by whichever way",
    "refused": "Writes that definitely did not happen",
    "unknown": "Writes of unknown outcome",
    "missed": "Publications, to any group, while the subscription was cut (upper bound)",
    "reconnects": "Connections opened again after a loss",
}


class Layer(Protocol):
    """What a metrics system reads of a layer."""

    prefix: str

    def stats(self) -> Mapping[str, Any]: ...


def losses(stats: Mapping[str, Any]) -> dict[str, int]:
    """Losses by reason, those that have not occurred too.

    Whoever looks at increases does not see the one with which a series begins.
    """
    return {**dict.fromkeys(map(str, Loss), 0), **stats["lost"]}


@runtime_checkable
class Metrics(Protocol):
    """One metrics system. Its methods are called from any thread, must return at once, and may not
    raise."""

    def watch(self, layer: Layer) -> None:
        """Export a layer's counters for as long as somebody holds the layer."""

    def observe(self, layer: str, verb: str, shard: str, outcome: str, seconds: float) -> None:
        """A call has ended: `layer` is the prefix, `outcome` as `outcome_of` names it."""


def outcome_of(error: BaseException | None) -> str:
    """ok; full; refused: it definitely did not happen; unknown: it may have; cancelled."""
    if error is None:
        return "ok"
    if not isinstance(error, ClusterError):
        return "cancelled"
    if type(error).__name__ == "ChannelFull":
        return "full"
    return "refused" if error.definite else "unknown"


def metrics_of(value: object) -> Metrics | None:
    """The hook that a setting names: a known name, a dotted path, an object.

    A class or function is called without arguments. ImportError, AttributeError, TypeError.
    """
    if value is None:
        return None
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        module, name = KNOWN.get(value, (module, name))
        value = getattr(import_module(module), name)
    if isinstance(value, type) or not isinstance(value, Metrics):
        value = _made(value)
    if not isinstance(value, Metrics):
        raise TypeError(f"a {type(value).__name__} has no watch() and observe()")
    return value


def _made(value: object) -> object:
    if not isinstance(value, Callable):  # type: ignore[arg-type]
        raise TypeError(f"a {type(value).__name__} is no metrics hook")
    return value()  # type: ignore[operator]
