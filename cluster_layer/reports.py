"""Reading what processes have told a shard of themselves (``presence`` writes it)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from cluster_layer.connection import Connection
from cluster_layer.keys import ClusterKeys
from topology.ports import ProcessReport

CHANNELS_AT_ONCE: Final = 500


async def reports_on(connection: Connection, cluster: ClusterKeys) -> list[ProcessReport]:
    """The reports that a shard has. ShardUnavailable, DeliveryUnknown: it could not be asked."""
    clock, reports, beats = await connection.execute(
        ("TIME",), ("HGETALL", cluster.reports), ("ZRANGE", cluster.beats, 0, -1, "WITHSCORES")
    )
    now_ms = milliseconds(clock)
    beat_ms = {process: float(score) for process, score in pairs(beats)}
    ids = [process for process, _ in pairs(reports)]
    subscribers: dict[bytes, int] = {}
    for start in range(0, len(ids), CHANNELS_AT_ONCE):
        channels = [cluster.process(one.decode()) for one in ids[start:][:CHANNELS_AT_ONCE]]
        counts = await connection.execute(("PUBSUB", "NUMSUB", *channels))
        subscribers |= dict(pairs(counts))
    parsed = (
        _parsed(
            text,
            alive=bool(subscribers.get(cluster.process(process.decode()))),
            age_s=max(0.0, now_ms - beat_ms.get(process, now_ms)) / 1000,
        )
        for process, text in pairs(reports)
    )
    return [report for report in parsed if report is not None]


def by_process(reports: Iterable[ProcessReport]) -> dict[str, ProcessReport]:
    """What several shards know of each process, as one report of it."""
    merged: dict[str, ProcessReport] = {}
    for report in reports:
        known = merged.get(report.id)
        merged[report.id] = report if known is None else _merged(known, report)
    return merged


def pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    """A flat reply of names and values, two by two."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def milliseconds(clock: Sequence[bytes]) -> int:
    """A reply to TIME."""
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


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


def _merged(one: ProcessReport, other: ProcessReport) -> ProcessReport:
    """Two shards' knowledge of one process: the later report, and whatever is known of its life."""
    later = min(one, other, key=lambda report: report.age_s)
    return replace(
        later,
        alive=one.alive or other.alive,
        epoch=max(one.epoch, other.epoch),
        settled=max(one.settled, other.settled),
    )
