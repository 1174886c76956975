"""How CONFIG metrics names a hook, and what a measured call is told as."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from cluster_layer.config import Config
from cluster_layer.errors import ChannelFull, ConfigError, DeliveryUnknown, ShardUnavailable
from cluster_layer.metrics.hook import KNOWN, Layer, metrics_of, outcome_of


class Recorder:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.calls: list[tuple[str, str, str, str, float]] = []

    def watch(self, layer: Layer) -> None:
        self.layers.append(layer)

    def observe(self, layer: str, verb: str, shard: str, outcome: str, seconds: float) -> None:
        self.calls.append((layer, verb, shard, outcome, seconds))


RECORDER = Recorder()


class NoHook:
    def stats(self) -> Mapping[str, Any]:
        return {}


def test_an_object_a_class_and_a_path_are_hooks() -> None:
    """Whatever names one."""
    assert metrics_of(None) is None
    assert metrics_of(RECORDER) is RECORDER
    assert isinstance(metrics_of(Recorder), Recorder)
    made = metrics_of(f"{__name__}.Recorder") if __name__ in __import__("sys").modules else None
    assert made is None or type(made).__name__ == "Recorder"


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_known_names_are_hooks(name: str) -> None:
    """And the same one each time, or one that exports nothing twice."""
    assert metrics_of(name) is not None
    assert metrics_of(name) is not None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("promethius", "'prometheus', 'opentelemetry'"),
        ("no.such.module", "can't be imported|No module"),
        (NoHook(), "no metrics hook"),
        (NoHook, r"no watch\(\)"),
        (7, "no metrics hook"),
    ],
)
def test_what_is_no_hook_is_told(value: object, why: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match="CONFIG metrics") as caught:
        Config.from_dict({"metrics": value})
    assert caught.match(why)


def test_outcomes_are_few() -> None:
    """A label with a value for each error would never end."""
    assert outcome_of(None) == "ok"
    assert outcome_of(ChannelFull("c", 1, 1)) == "full"
    assert outcome_of(ShardUnavailable("s", "down")) == "refused"
    assert outcome_of(DeliveryUnknown("s", "late")) == "unknown"
    assert outcome_of(asyncio.CancelledError()) == "cancelled"
