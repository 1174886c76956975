"""What Prometheus and OpenTelemetry get to see of a layer that works, and of one that fails."""

import gc
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from cluster_layer.errors import ChannelFull, ShardUnavailable
from cluster_layer.metrics.hook import Metrics
from cluster_layer.metrics.open_telemetry import OpenTelemetryMetrics
from cluster_layer.metrics.prometheus import PrometheusMetrics
from tests.support.layers import numbered, open_layer, receive
from tests.support.waiting import eventually_async

GAUGES = ("connected", "epoch", "stalled_readers")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def prometheus_samples(registry: CollectorRegistry) -> Samples:
    """What a scrape gets."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def open_telemetry_samples(reader: InMemoryMetricReader) -> Samples:
    """The same, with the names and the counts of histograms that Prometheus would have."""
    data: Any = reader.get_metrics_data()
    samples: Samples = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                name = metric.name.replace(".", "_")
                for point in metric.data.data_points:
                    labels = frozenset((k, str(v)) for k, v in point.attributes.items())
                    if hasattr(point, "count"):
                        samples["cluster_layer_call_seconds_count", labels] = point.count
                    elif name.removeprefix("cluster_layer_") in GAUGES:
                        samples[name, labels] = point.value
                    else:
                        samples[f"{name}_total", labels] = point.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with these labels and whatever others."""
    wanted = frozenset(labels.items())
    return sum(v for (found, has), v in samples.items() if found == name and wanted <= has)


async def use(layer: ClusterChannelLayer, server: RedisServer) -> None:
    """A little of everything; then the shard dies."""
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    for number in range(3):
        await layer.group_send("group", numbered(number))
        await layer.send("orders", numbered(number))
    with pytest.raises(ChannelFull):
        await layer.send("orders", numbered(3))
    assert await receive(layer, channel) == numbered(0)
    await layer.group_send("group", numbered(3))
    await layer.group_send("group", numbered(4))  # the member has no room for this one
    await eventually_async(lambda: layer.stats()["lost"].get("full") == 1)
    await layer.group_discard("group", channel)
    server.kill()
    await eventually_async(
        lambda: not any(s["connected"] for s in layer.stats()["shards"].values())
    )
    await layer.send("orders", numbered(5), confirm=False)
    await layer.wait_for_confirms()
    with pytest.raises(ShardUnavailable):
        await layer.send("orders", numbered(5))


def check(samples: Samples) -> None:
    """What is seen after `use`."""
    calls = "cluster_layer_call_seconds_count"
    assert value(samples, calls, layer="shop", verb="send", outcome="ok") == 3
    assert value(samples, calls, layer="shop", verb="send", outcome="full") == 1
    assert value(samples, calls, layer="shop", verb="send", outcome="refused") == 1
    assert value(samples, calls, layer="shop", verb="group_send", outcome="ok") == 5
    assert value(samples, calls, layer="shop", verb="group_add", outcome="ok") == 1
    assert value(samples, calls, layer="shop", verb="group_discard", outcome="ok") == 1
    assert value(samples, "cluster_layer_sent_total", layer="shop") == 3
    assert value(samples, "cluster_layer_published_total", layer="shop") == 5
    assert value(samples, "cluster_layer_lost_total", layer="shop", reason="full") == 1
    # A series that began with the first loss would hide it from whoever looks at increases.
    none = frozenset({("layer", "shop"), ("reason", "malformed")})
    assert samples["cluster_layer_lost_total", none] == 0
    assert (
        value(samples, "cluster_layer_unconfirmed_total", layer="shop", reason="unavailable") == 1
    )
    assert value(samples, "cluster_layer_refused_total", layer="shop") >= 2
    assert ("cluster_layer_epoch", frozenset({("layer", "shop")})) in samples
    assert value(samples, "cluster_layer_connected", layer="shop") == 0
    assert value(samples, "cluster_layer_stalled_readers", layer="shop") == 0


async def test_prometheus_sees_everything(redis_server: RedisServer) -> None:
    """Counters per shard, losses per reason, durations per verb, shard and outcome."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    config: dict[str, Any] = {"prefix": "shop", "capacity": 3, "metrics": metrics, "timeout": 0.5}
    async with open_layer([redis_server], **config) as layer:
        await use(layer, redis_server)
        check(prometheus_samples(registry))


async def test_open_telemetry_sees_everything(redis_server: RedisServer) -> None:
    """The same."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    metrics = OpenTelemetryMetrics(provider)
    config: dict[str, Any] = {"prefix": "shop", "capacity": 3, "metrics": metrics, "timeout": 0.5}
    async with open_layer([redis_server], **config) as layer:
        await use(layer, redis_server)
        check(open_telemetry_samples(reader))
    provider.shutdown()


async def test_layers_share_a_registry_and_leave_it(shards: list[RedisServer]) -> None:
    """Several layers of one process; one that is dropped is not exported any more."""
    registry = CollectorRegistry()
    for prefix in ("one", "two"):
        async with open_layer(shards, prefix=prefix, metrics=PrometheusMetrics(registry)) as layer:
            await layer.send("orders", numbered(1))
            assert (
                value(prometheus_samples(registry), "cluster_layer_sent_total", layer=prefix) == 1
            )
            assert await receive(layer, "orders") == numbered(1)
        del layer

    async def is_gone() -> bool:
        gc.collect()
        return value(prometheus_samples(registry), "cluster_layer_sent_total") == 0

    await eventually_async(is_gone)


def test_the_hooks_are_what_the_protocol_says() -> None:
    """Both can be given as CONFIG metrics."""
    assert isinstance(PrometheusMetrics(CollectorRegistry()), Metrics)
    assert isinstance(OpenTelemetryMetrics(MeterProvider()), Metrics)
