"""What the layer counts."""

import json
from dataclasses import asdict

from cluster_layer.buffers import Loss
from cluster_layer.counters import Counters, ShardCounters


def test_every_loss_is_counted_under_its_reason() -> None:
    """Losses add up per reason; reasons that never occurred are not listed."""
    counters = Counters()
    counters.lose(Loss.FULL)
    counters.lose(Loss.EXPIRED, 3)
    counters.lose(Loss.FULL, 2)
    assert counters.as_dict()["lost"] == {"full": 3, "expired": 3}


def test_shards_are_counted_apart() -> None:
    """Traffic belongs to the shard that carried it."""
    counters = Counters()
    counters.shards["a"].sent += 2
    counters.shards["b"].reconnects += 1
    untouched = asdict(ShardCounters())
    assert counters.as_dict()["shards"] == {
        "a": {**untouched, "sent": 2},
        "b": {**untouched, "reconnects": 1},
    }


def test_a_reading_is_plain_data_of_its_own() -> None:
    """What was read goes into JSON and does not change afterwards."""
    counters = Counters()
    counters.shards["a"].sent += 1
    counters.lose(Loss.ORDER)
    reading = counters.as_dict()
    counters.shards["a"].sent += 1
    counters.lose(Loss.ORDER)
    assert json.loads(json.dumps(reading)) == reading
    assert (reading["shards"]["a"]["sent"], reading["lost"]["order"]) == (1, 1)
