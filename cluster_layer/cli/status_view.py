"""An overview as tables and as JSON; passwords in neither."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster_layer.overview import Condition, Overview, condition_of
from topology import SLOTS, redacted_url
from topology.history import Holder
from topology.model import Shard, ShardState
from topology.ports import ProcessReport, ShardStatus, StoreServer
from topology.progress import Hold, reason_of

#: Processes in a table; those that need a look come first.
SHOWN: Final = 20
#: Columns of a terminal that has room for everything in one table.
WIDE: Final = 128
#: Of a narrow one, how many columns are in the first table.
_FIRST: Final = 7
_LEFT: Final = frozenset(
    {"shard", "URL", "state", "role", "incarnation", "process", "host", "receives", "prefix"}
    | {"version", "held by"}
)
_BAD, _GOOD, _ODD = "red", "green", "yellow"


def status_tables(
    overview: Overview, *, width: int = WIDE, processes: int | None = SHOWN
) -> RenderableType:
    """For a terminal of this many columns, with so many processes; None: all."""
    parts: list[RenderableType] = [_headline(overview)]
    if overview.store.trouble is not None:
        parts.append(Text(f"store: {overview.store.trouble}", style=_BAD))
    parts += [*_change_lines(overview), *_shard_parts(overview, width)]
    parts += _process_parts(overview, width, processes)
    parts += [_monitors_line(overview), _servers_table(overview.store.servers)]
    return Group(*parts)


def status_json(overview: Overview) -> dict[str, Any]:
    """Times in seconds, sizes in bytes; null is what nobody told."""
    topology, progress = overview.topology, overview.progress()
    change = topology.change
    return {
        "cluster": topology.cluster,
        "epoch": topology.epoch,
        "phase": topology.phase.value,
        "store": {
            "kind": overview.store.kind,
            "trouble": overview.store.trouble,
            "servers": [_server_json(server) for server in overview.store.servers],
        },
        "change": change
        and progress
        and {
            "id": change.id,
            "summary": change.summary,
            "operator": str(change.operator),
            "started_at": change.started_at,
            "stage": progress.stage.value,
            "slots_done": progress.slots_done,
            "slots": progress.slots,
            "slots_per_round": change.step,
            "paused": change.paused,
            "holds": [_hold_json(hold) for hold in overview.holds()],
        },
        "operator": overview.operator and _holder_json(overview.operator),
        "shards": [_shard_json(overview, shard) for shard in topology.shards],
        "processes": [_process_json(overview, one) for one in overview.applications()],
        "monitors": [
            {**_process_json(overview, one), "leads": overview.leads(one)}
            for one in overview.monitors()
        ],
    }


def _headline(overview: Overview) -> Text:
    topology = overview.topology
    text = Text(f"cluster {topology.cluster}, epoch {topology.epoch}, {topology.phase.value}")
    if overview.operator is not None:
        text.append(f"; {overview.operator} is at work")
    return text


def _change_lines(overview: Overview) -> Iterable[Text]:
    change, progress = overview.topology.change, overview.progress()
    if change is None or progress is None:
        return
    share = progress.slots_done / progress.slots if progress.slots else 1.0
    yield Text(
        f"change: {change.summary}, begun by {change.operator}: {progress.slots_done:,} of "
        f"{progress.slots:,} slots ({share:.0%}), {progress.stage.value}, "
        f"{change.step:,} slots per round",
        style="bold",
    )
    if change.paused is not None:
        yield Text(f"  paused: {change.paused}", style=_ODD)
    for hold in overview.holds()[:SHOWN]:
        yield Text(f"  waits for {hold}", style=_ODD)


def _shard_parts(overview: Overview, width: int) -> Iterable[RenderableType]:
    """One table, or two where there is no room; below them why some shards were not reached."""
    shards = overview.topology.shards
    rows = [_shard_cells(overview, shard) for shard in shards]
    headings = list(rows[0])
    if all(map(_names_place, shards)):
        headings.remove("URL")
    tables = [headings] if width >= WIDE else [headings[:_FIRST], [headings[0], *headings[_FIRST:]]]
    for index, chosen in enumerate(tables):
        table = Table(box=box.SIMPLE, title=None if index else "shards", title_justify="left")
        for heading in chosen:
            left = heading in _LEFT
            table.add_column(heading, justify="left" if left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(row[heading] for heading in chosen))
        yield table
    for shard in shards:
        status = overview.statuses.get(shard.id)
        if status is not None and status.reason is not None:
            yield Text(f"  {shard.id}: {status.reason}", style=_BAD)


def _shard_cells(overview: Overview, shard: Shard) -> dict[str, Text]:
    """Heading -> cell; what a shard that was not reached does not tell is empty."""
    status = overview.statuses.get(shard.id) or ShardStatus(shard.id, "not asked")
    slots = len(overview.topology.slots_of(shard.id))
    limit = f" of {_size(status.max_memory_bytes)}" if status.max_memory_bytes else ""
    role = {"master": "primary", "slave": "replica"}.get(status.role or "", status.role or "")
    replicas = f", {status.replicas} replicas" if status.replicas else ""
    behind = status.epoch != overview.topology.epoch
    memory = f"{_size(status.memory_bytes)}{limit}" if status.reachable else ""
    return {
        "shard": Text(shard.id),
        "URL": Text(redacted_url(shard.url)),
        "state": _state(shard, status),
        "weight": Text(f"{shard.weight:g}"),
        "slots": Text(f"{slots:,}"),
        "share": Text(f"{slots / SLOTS:.1%}"),
        "epoch": Text(str(status.epoch or "-"), style=_ODD if behind else ""),
        "memory": Text(memory),
        "ops/s": Text(_number(status.commands_per_s)),
        "clients": Text(_number(status.connections)),
        "latency": Text(_milliseconds(status.latency_s)),
        "role": Text(f"{role}{replicas}"),
        "incarnation": Text(status.incarnation or ""),
    }


def _names_place(shard: Shard) -> bool:
    """Whether the id says already where the shard is."""
    return redacted_url(shard.url).rpartition("@")[2].rpartition("://")[2] == shard.id


def _state(shard: Shard, status: ShardStatus) -> Text:
    if not status.reachable:
        return Text(f"{shard.state.value}, not reached", style=_BAD)
    usual = shard.state is ShardState.UP
    return Text(shard.state.value, style=_GOOD if usual else _ODD)


def _process_parts(overview: Overview, width: int, limit: int | None) -> Iterable[RenderableType]:
    found = overview.applications()
    if not found:
        yield Text("processes: none\n")
        return
    notes = {one.id: _process_note(overview, one) for one in found}
    found.sort(key=lambda one: not notes[one.id])  # those with a note first
    headings = ["process", "host", "pid", "epoch", "lag", "state"]
    if width >= WIDE:
        headings += ["receives", "prefix", "version"]
    table = Table(box=box.SIMPLE, title="processes", title_justify="left")
    for heading in (*headings, "held by"):
        table.add_column(heading, justify="left" if heading in _LEFT else "right", overflow="fold")
    for one in found[:limit]:
        cells = _process_cells(overview, one)
        table.add_row(*(cells[name] for name in headings), Text(notes[one.id], style=_ODD))
    yield table
    if limit is not None and len(found) > limit:
        yield Text(f"  and {len(found) - limit:,} more: --all shows them\n")


def _process_cells(overview: Overview, report: ProcessReport) -> dict[str, Text]:
    condition = condition_of(report)
    return {
        "process": Text(report.id),
        "host": Text(report.host),
        "pid": Text(str(report.pid)),
        "epoch": Text(str(report.epoch)),
        "lag": Text(str(_lag(overview, report))),
        "state": Text(condition.value, style=_GOOD if condition is Condition.WELL else _BAD),
        "receives": Text("yes" if report.receives else "no"),
        "prefix": Text(report.prefix),
        "version": Text(report.version),
    }


def _process_note(overview: Overview, report: ProcessReport) -> str:
    """What holds a process up, "" if nothing does."""
    epoch = overview.topology.epoch
    if condition_of(report) is Condition.GONE:
        return f"not heard of for {report.age_s:.0f} s"
    late = report.receives and report.settled < epoch
    if not (late or report.epoch < epoch or report.unreachable or report.waiting_for):
        return reason_of(report, epoch) if condition_of(report) is Condition.SILENT else ""
    return reason_of(report, epoch)


def _lag(overview: Overview, report: ProcessReport) -> int:
    """How many epochs a process is behind."""
    return max(0, overview.topology.epoch - report.epoch)


def _monitors_line(overview: Overview) -> Text:
    monitors = overview.monitors()
    if not monitors:
        return Text("monitors: none\n", style=_ODD)
    names = [f"{one.host}/{one.pid}{' (leads)' if overview.leads(one) else ''}" for one in monitors]
    return Text(f"monitors: {', '.join(names)}\n")


def _servers_table(servers: tuple[StoreServer, ...]) -> Table:
    table = Table(box=box.SIMPLE, title="store", title_justify="left")
    table.add_column("server", overflow="fold")
    for heading in ("state", "role", "latency", "version"):
        table.add_column(heading)
    for server in servers:
        state = Text("serves", style=_GOOD) if server.serves else Text(str(server.reason), _BAD)
        latency = _milliseconds(server.latency_s)
        table.add_row(Text(server.address), state, server.role or "", latency, server.version or "")
    return table


def _shard_json(overview: Overview, shard: Shard) -> dict[str, Any]:
    status = overview.statuses.get(shard.id) or ShardStatus(shard.id, "not asked")
    slots = len(overview.topology.slots_of(shard.id))
    return {
        "id": shard.id,
        "url": redacted_url(shard.url),
        "state": shard.state.value,
        "weight": shard.weight,
        "slots": slots,
        "share": slots / SLOTS,
        "reachable": status.reachable,
        "reason": status.reason,
        "latency_s": status.latency_s,
        "version": status.version,
        "role": status.role,
        "replicas": status.replicas,
        "incarnation": status.incarnation,
        "epoch": status.epoch,
        "memory_bytes": status.memory_bytes,
        "max_memory_bytes": status.max_memory_bytes,
        "commands_per_s": status.commands_per_s,
        "connections": status.connections,
        "keys": status.keys,
    }


def _process_json(overview: Overview, report: ProcessReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "host": report.host,
        "pid": report.pid,
        "prefix": report.prefix,
        "version": report.version,
        "receives": report.receives,
        "state": condition_of(report).value,
        "epoch": report.epoch,
        "settled": report.settled,
        "lag": _lag(overview, report),
        "age_s": report.age_s,
        "unreachable": dict(report.unreachable),
        "held_by": _process_note(overview, report) or None,
    }


def _server_json(server: StoreServer) -> dict[str, Any]:
    return {
        "address": server.address,
        "serves": server.serves,
        "reason": server.reason,
        "latency_s": server.latency_s,
        "role": server.role,
        "version": server.version,
    }


def _hold_json(hold: Hold) -> dict[str, Any]:
    return {
        "process": hold.process,
        "host": hold.host,
        "pid": hold.pid,
        "reason": hold.reason,
    }


def _holder_json(holder: Holder) -> dict[str, Any]:
    operator = holder.operator
    return {
        "user": operator.user,
        "host": operator.host,
        "pid": operator.pid,
        "since": holder.since,
    }


def _size(count: int | None) -> str:
    """Bytes, as people read them."""
    if count is None:
        return "?"
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"
