"""Metrics for Prometheus, in the registry that the site exposes anyway."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cluster_layer.metrics.hook import BUCKETS_S, SHARD_COUNTERS, Layer, losses

_lock = threading.Lock()
_hooks: weakref.WeakKeyDictionary[CollectorRegistry, _LayerCollector] = weakref.WeakKeyDictionary()


class PrometheusMetrics:
    """All layers of a process in one registry; made as often as one likes."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        with _lock:
            if registry not in _hooks:
                _hooks[registry] = _LayerCollector(registry)
            self._collector = _hooks[registry]
        self._observe: dict[tuple[str, str, str, str], Callable[[float], None]] = {}

    def watch(self, layer: Layer) -> None:
        self._collector.layers.add(layer)

    def observe(self, layer: str, verb: str, shard: str, outcome: str, seconds: float) -> None:
        key = (layer, verb, shard, outcome)
        observe = self._observe.get(key)
        if observe is None:  # looking for it anew costs more than what it does
            observe = self._observe[key] = self._collector.calls.labels(*key).observe
        observe(seconds)


class _LayerCollector(Collector):
    """Reads the layers' counters when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        self.calls = Histogram(
            "cluster_layer_call_seconds",
            "Duration of calls, from the call to the shard's answer",
            ("layer", "verb", "shard", "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        registry.register(self)

    def describe(self) -> list[Any]:
        """Nothing is collected at registration: no layer need exist yet."""
        return []

    def collect(self) -> Iterator[Any]:
        readings = [(layer.prefix, layer.stats()) for layer in list(self.layers)]
        for name, text in SHARD_COUNTERS.items():
            family = CounterMetricFamily(f"cluster_layer_{name}", text, labels=("layer", "shard"))
            for layer, stats in readings:
                for shard, counters in stats["shards"].items():
                    family.add_metric((layer, shard), counters[name])
            yield family
        connected = GaugeMetricFamily(
            "cluster_layer_connected",
            "1 while this process is connected to the shard",
            labels=("layer", "shard"),
        )
        lost = CounterMetricFamily(
            "cluster_layer_lost", "Messages that were lost, by reason", labels=("layer", "reason")
        )
        unconfirmed = CounterMetricFamily(
            "cluster_layer_unconfirmed",
            "Messages sent with confirm=False that did not get through, or perhaps not",
            labels=("layer", "reason"),
        )
        epoch = GaugeMetricFamily(
            "cluster_layer_epoch", "Epoch of the topology in use", labels=("layer",)
        )
        stalled = GaugeMetricFamily(
            "cluster_layer_stalled_readers",
            "Readers that make no progress",
            labels=("layer",),
        )
        for layer, stats in readings:
            for shard, counters in stats["shards"].items():
                connected.add_metric((layer, shard), float(counters["connected"]))
            for reason, count in losses(stats).items():
                lost.add_metric((layer, reason), count)
            for reason, count in stats["unconfirmed"].items():
                unconfirmed.add_metric((layer, reason), count)
            epoch.add_metric((layer,), stats["epoch"])
            stalled.add_metric((layer,), len(stats["stalled"]))
        yield from (connected, lost, unconfirmed, epoch, stalled)
