"""Reading what processes have told a shard of themselves (``presence`` writes it)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

from cluster_layer.connection import Connection
from cluster_layer.keys import ClusterKeys
from topology.ports import ProcessReport

CHANNELS_AT_ONCE: Final = 500


class Sighting(NamedTuple):
    """What one shard knows of a process."""

    text: bytes  # its latest report
    alive: bool  # its subscription is there
    age_s: float


Sightings: TypeAlias = Mapping[bytes, Sighting]  # by process id


async def sightings_on(connection: Connection, cluster: ClusterKeys) -> Sightings:
    """What a shard knows. ShardUnavailable, DeliveryUnknown: it could not be asked."""
    clock, reports, beats = await connection.execute(
        ("TIME",), ("HGETALL", cluster.reports), ("ZRANGE", cluster.beats, 0, -1, "WITHSCORES")
    )
    now_ms = milliseconds(clock)
    beat_ms = {process: float(score) for process, score in pairs(beats)}
    channel_of = {process: cluster.process("") + process for process, _ in pairs(reports)}
    channels = list(channel_of.values())
    subscribers: dict[bytes, int] = {}
    for start in range(0, len(channels), CHANNELS_AT_ONCE):
        some = channels[start : start + CHANNELS_AT_ONCE]
        subscribers |= dict(pairs(await connection.execute(("PUBSUB", "NUMSUB", *some))))
    return {
        process: Sighting(
            text,
            alive=bool(subscribers.get(channel_of[process])),
            age_s=max(0.0, now_ms - beat_ms.get(process, now_ms)) / 1000,
        )
        for process, text in pairs(reports)
    }


def by_process(sightings: Iterable[Sightings]) -> dict[str, ProcessReport]:
    """What several shards know of each process, as one report of it.

    Ten thousand processes tell every shard the same: each text is read once.
    """
    of_each: dict[bytes, list[Sighting]] = defaultdict(list)
    for seen in sightings:
        for process, sighting in seen.items():
            of_each[process].append(sighting)
    reports = (_merged(found) for found in of_each.values())
    return {report.id: report for report in reports if report is not None}


def pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    """A flat reply of names and values, two by two."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def milliseconds(clock: Sequence[bytes]) -> int:
    """A reply to TIME."""
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


def _merged(sightings: Sequence[Sighting]) -> ProcessReport | None:
    """The latest report, and whatever is known of the process's life; None if there is none."""
    age_by_text: dict[bytes, float] = {}
    for sighting in sightings:
        known_s = age_by_text.get(sighting.text, sighting.age_s)
        age_by_text[sighting.text] = min(known_s, sighting.age_s)
    alive = any(sighting.alive for sighting in sightings)
    parsed = [_parsed(text, alive=alive, age_s=age_s) for text, age_s in age_by_text.items()]
    reports = [report for report in parsed if report is not None]
    if len(reports) < 2:
        return reports[0] if reports else None
    latest = min(reports, key=lambda report: report.age_s)
    return replace(
        latest,
        epoch=max(report.epoch for report in reports),
        settled=max(report.settled for report in reports),
    )


def _parsed(text: bytes, *, alive: bool, age_s: float) -> ProcessReport | None:
    """A report as its process wrote it; None if it is none."""
    try:
        fields = json.loads(text)
        return ProcessReport(
            id=str(fields["id"]),
            role=str(fields["role"]),
            host=str(fields["host"]),
            pid=int(fields["pid"]),
            prefix=str(fields["prefix"]),
            version=str(fields["version"]),
            receives=bool(fields["receives"]),
            alive=alive,
            epoch=int(fields["epoch"]),
            settled=int(fields["settled"]),
            unreachable={str(k): str(v) for k, v in fields["unreachable"].items()},
            waiting_for=fields["waiting_for"] and str(fields["waiting_for"]),
            age_s=age_s,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
