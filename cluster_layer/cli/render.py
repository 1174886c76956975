"""Values as tables and as JSON; passwords in neither."""

import json
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cluster_layer.cli.commands import Place
from topology import SLOTS, Shard, Topology, redacted_url

# Texts go into cells as Text: an IPv6 address in brackets is not markup.


def topology_table(topology: Topology) -> Table:
    table = Table(
        title=f"epoch {topology.epoch}, {topology.phase.value}",
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column("shard")
    table.add_column("URL", overflow="fold")
    for heading in ("state", "weight", "slots", "share"):
        table.add_column(heading, justify="right")
    for shard in topology.shards:
        slots = len(topology.slots_of(shard.id))
        table.add_row(
            Text(shard.id),
            Text(redacted_url(shard.url)),
            shard.state.value,
            f"{shard.weight:g}",
            f"{slots:,}",
            f"{slots / SLOTS:.1%}",
        )
    return table


def topology_json(topology: Topology) -> str:
    return _json(
        {
            "cluster": topology.cluster,
            "epoch": topology.epoch,
            "phase": topology.phase.value,
            "shards": [
                {
                    "id": shard.id,
                    "url": redacted_url(shard.url),
                    "state": shard.state.value,
                    "weight": shard.weight,
                    "slots": len(topology.slots_of(shard.id)),
                }
                for shard in topology.shards
            ],
        }
    )


def places_table(places: Iterable[Place]) -> Table:
    found = list(places)
    moves = any(place.other is not None for place in found)
    table = Table("name", box=box.SIMPLE)
    table.add_column("slot", justify="right")
    table.add_column("shard")
    table.add_column("URL", overflow="fold")
    if moves:
        table.add_column("phase")
        table.add_column("served as well by")
        table.add_column("URL", overflow="fold")
    for place in found:
        cells = [Text(place.name), Text(str(place.slot)), *_shard_cells(place.shard)]
        if place.other is not None:
            cells += [Text(place.phase.value), *_shard_cells(place.other)]
        table.add_row(*cells)
    return table


def _shard_cells(shard: Shard) -> list[Text]:
    return [Text(shard.id), Text(redacted_url(shard.url))]


def places_json(places: Iterable[Place]) -> str:
    return _json(
        [
            {
                "name": place.name,
                "slot": place.slot,
                "shard": place.shard.id,
                "url": redacted_url(place.shard.url),
                "phase": place.phase.value,
                "other": place.other
                and {"shard": place.other.id, "url": redacted_url(place.other.url)},
            }
            for place in places
        ]
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
