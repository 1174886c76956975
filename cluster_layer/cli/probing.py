"""A message to itself through every shard."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from cluster_layer import ClusterChannelLayer
from topology.errors import ClusterError

#: Names that are tried to find one for each shard: one of four slots is missed once in 10**8 times.
_ATTEMPTS = 20_000


@dataclass(frozen=True, slots=True)
class Probe:
    """How one shard did; ``reason`` None: the message came back."""

    shard: str
    reason: str | None
    took_s: float


async def probe(layer: ClusterChannelLayer, timeout_s: float) -> list[Probe]:
    """Each shard that owns slots, in the order of ids. Never longer than the timeout, or little."""
    channels = await _channels(layer)
    return list(
        await asyncio.gather(*(_through(layer, *found, timeout_s) for found in channels.items()))
    )


async def _channels(layer: ClusterChannelLayer) -> dict[str, str]:
    """Shard -> a channel of this process that lives there."""
    await layer.locate("probe")  # from here on the shards are known
    wanted = sorted(layer.stats()["shards"])
    found: dict[str, str] = {}
    for number in range(_ATTEMPTS):
        if len(found) == len(wanted):
            break
        channel = await layer.new_channel(f"probe-{number}")
        found.setdefault(await layer.locate(channel), channel)
    return {shard: found[shard] for shard in wanted if shard in found}


async def _through(layer: ClusterChannelLayer, shard: str, channel: str, timeout_s: float) -> Probe:
    began = time.monotonic()
    reason = None
    try:
        async with asyncio.timeout(timeout_s):
            await layer.send(channel, {"type": "probe"})
            await layer.receive(channel)
    except TimeoutError:
        reason = f"the message did not come back within {timeout_s:g} s"
    except ClusterError as error:
        reason = str(getattr(error, "reason", error))
    return Probe(shard, reason, time.monotonic() - began)


def as_table(probes: Iterable[Probe]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("shard", "state", "took"):
        table.add_column(heading, overflow="fold")
    for one in probes:
        state = Text("ok", "green") if one.reason is None else Text(one.reason, "red")
        table.add_row(Text(one.shard), state, f"{one.took_s * 1000:.1f} ms")
    return table


def as_json(probes: Iterable[Probe]) -> str:
    return json.dumps([asdict(one) for one in probes], indent=2)
