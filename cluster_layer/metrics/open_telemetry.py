"""Metrics for OpenTelemetry, by the meter provider that the site has configured."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from cluster_layer.metrics.hook import BUCKETS_S, SHARD_COUNTERS, Layer, losses

_lock = threading.Lock()
_hooks: list[OpenTelemetryMetrics] = []

Read = Callable[[str, Any], Iterable[Observation]]


class OpenTelemetryMetrics:
    """All layers of a process with one meter; make one for each provider."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        self._layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        meter = get_meter("cluster_layer", meter_provider=provider)
        self._calls = meter.create_histogram(
            "cluster_layer.call.duration",
            unit="s",
            description="Duration of calls, from the call to the shard's answer",
            explicit_bucket_boundaries_advisory=list(BUCKETS_S),
        )
        for name, text in SHARD_COUNTERS.items():
            callback = self._callback(_shard_counter(name))
            meter.create_observable_counter(f"cluster_layer.{name}", [callback], description=text)
        self._create_others(meter)

    def watch(self, layer: Layer) -> None:
        self._layers.add(layer)

    def observe(self, layer: str, verb: str, shard: str, outcome: str, seconds: float) -> None:
        attributes = {"layer": layer, "verb": verb, "shard": shard, "outcome": outcome}
        self._calls.record(seconds, attributes)

    def _create_others(self, meter: Meter) -> None:
        meter.create_observable_counter(
            "cluster_layer.lost",
            [self._callback(_by_reason(losses))],
            description="Messages that were lost, by reason",
        )
        meter.create_observable_counter(
            "cluster_layer.unconfirmed",
            [self._callback(_by_reason(itemgetter("unconfirmed")))],
            description="Messages sent with confirm=False that did not get through",
        )
        meter.create_observable_gauge(
            "cluster_layer.connected",
            [self._callback(_connected)],
            description="1 while this process is connected to the shard",
        )
        meter.create_observable_gauge(
            "cluster_layer.epoch",
            [self._callback(_epoch)],
            description="Epoch of the topology in use",
        )
        meter.create_observable_gauge(
            "cluster_layer.stalled_readers",
            [self._callback(_stalled)],
            description="Readers that make no progress",
        )

    def _callback(self, read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_options: CallbackOptions) -> list[Observation]:
            layers = list(self._layers)
            return [one for layer in layers for one in read(layer.prefix, layer.stats())]

        return observations


def the_hook() -> OpenTelemetryMetrics:
    """The one with the provider that is configured for the whole process.

    A second set of the same instruments would count everything twice.
    """
    with _lock:
        if not _hooks:
            _hooks.append(OpenTelemetryMetrics())
        return _hooks[0]


def _shard_counter(name: str) -> Read:
    def read(layer: str, stats: Any) -> Iterable[Observation]:
        for shard, counters in stats["shards"].items():
            yield Observation(counters[name], {"layer": layer, "shard": shard})

    return read


def _by_reason(counts: Callable[[Any], Mapping[str, int]]) -> Read:
    def read(layer: str, stats: Any) -> Iterable[Observation]:
        for reason, count in counts(stats).items():
            yield Observation(count, {"layer": layer, "reason": reason})

    return read


def _connected(layer: str, stats: Any) -> Iterable[Observation]:
    for shard, counters in stats["shards"].items():
        yield Observation(int(counters["connected"]), {"layer": layer, "shard": shard})


def _epoch(layer: str, stats: Any) -> Iterable[Observation]:
    yield Observation(stats["epoch"], {"layer": layer})


def _stalled(layer: str, stats: Any) -> Iterable[Observation]:
    yield Observation(len(stats["stalled"]), {"layer": layer})
