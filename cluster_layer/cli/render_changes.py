"""Plans, progress, verifications and the history, as tables and as JSON; no password in either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from topology import SLOTS, Change, Topology, redacted_url
from topology.history import Entry
from topology.plans import Plan
from topology.prechecks import Objection
from topology.progress import Progress
from topology.verification import Verification

Bytes = Mapping[tuple[str, str], int]


# -- plans


def plan_picture(
    plan: Plan, topology: Topology, sizes: Bytes, objections: Sequence[Objection]
) -> Group:
    """What moves from where to where, how much, and what each shard has before and after."""
    parts: list[Any] = [Text(_plan_title(plan))]
    if plan.moves:
        parts += [_flows(plan, sizes), _shards(plan, topology)]
    parts += [Text(f"speaks against it: {objection}") for objection in objections]
    return Group(*parts)


def plan_json(
    plan: Plan, topology: Topology, sizes: Bytes, objections: Sequence[Objection]
) -> dict[str, Any]:
    before, after = _counts(plan, topology)
    return {
        "cluster": plan.cluster,
        "epoch": plan.epoch,
        "summary": plan.summary,
        "slots": len(plan.moves),
        "flows": [
            {
                "from": source,
                "to": target,
                "slots": len(slots),
                "memory_bytes_at_most": sizes.get((source, target)),
            }
            for (source, target), slots in plan.flows().items()
        ],
        "shards": [
            {
                "id": shard.id,
                "url": redacted_url(shard.url),
                "state": shard.state.value,
                "weight": shard.weight,
                "slots_before": before[shard.id],
                "slots_after": after[shard.id],
            }
            for shard in plan.shards
        ],
        "leaving": [s.id for s in topology.shards if s.id not in {w.id for w in plan.shards}],
        "objections": [asdict(objection) for objection in objections],
    }


def _plan_title(plan: Plan) -> str:
    share = f"{len(plan.moves):,} of {SLOTS:,} slots move ({len(plan.moves) / SLOTS:.1%})"
    return f"{plan.summary or 'a plan'}: {share}, planned for epoch {plan.epoch}"


def _flows(plan: Plan, sizes: Bytes) -> Table:
    table = Table("from", "to", box=box.SIMPLE)
    for heading in ("slots", "memory at most"):
        table.add_column(heading, justify="right")
    for (source, target), slots in plan.flows().items():
        size = sizes.get((source, target))
        shown = "" if size is None else f"{size / 2**20:,.1f} MiB"
        table.add_row(Text(source), Text(target), f"{len(slots):,}", shown)
    return table


def _shards(plan: Plan, topology: Topology) -> Table:
    before, after = _counts(plan, topology)
    table = Table("shard", box=box.SIMPLE)
    for heading in ("state", "weight", "slots now", "afterwards", "share"):
        table.add_column(heading, justify="right")
    wanted = {shard.id: shard for shard in plan.shards}
    for shard_id in sorted(before.keys() | wanted.keys()):
        shard = wanted.get(shard_id)
        table.add_row(
            Text(shard_id),
            "leaves" if shard is None else shard.state.value,
            "" if shard is None else f"{shard.weight:g}",
            f"{before[shard_id]:,}",
            f"{after[shard_id]:,}",
            f"{after[shard_id] / SLOTS:.1%}",
        )
    return table


def _counts(plan: Plan, topology: Topology) -> tuple[Counter[str], Counter[str]]:
    before = Counter(topology.table.owners)
    after = Counter(before)
    for move in plan.moves:
        after[move.source] -= 1
        after[move.target] += 1
    return before, after


# -- progress


def progress_line(progress: Progress) -> str:
    """One look in one line."""
    return "; ".join([progress_state(progress), *reasons_to_wait(progress)])


def progress_state(progress: Progress) -> str:
    """How far it is, without what it waits for."""
    change = progress.change
    if change is None:
        parts = [f"epoch {progress.epoch}: no change is under way"]
    else:
        moved = f"{progress.slots_done:,} of {progress.slots:,} slots"
        parts = [f"epoch {progress.epoch}, {moved}: {progress.stage.value}"]
        if change.paused is not None:
            parts.append(f"paused ({change.paused})")
    if progress.waits:
        waited = f", {progress.waited_s:.0f} s so far" if progress.waited_s else ""
        parts.append(f"{progress.doing.value}{waited}")
    return "; ".join(parts)


def reasons_to_wait(progress: Progress) -> list[str]:
    """Each process, shard or trouble that holds the change up."""
    holds = [f"process {hold}" for hold in progress.holds]
    shards = [f"shard {shard}: {reason}" for shard, reason in progress.shards.items()]
    return [*holds, *shards, *filter(None, [progress.trouble])]


def progress_json(progress: Progress) -> dict[str, Any]:
    return {
        "epoch": progress.epoch,
        "stage": progress.stage.name.lower(),
        "doing": progress.doing.name.lower(),
        "change": None if progress.change is None else change_json(progress.change),
        "slots_done": progress.slots_done,
        "slots": progress.slots,
        "tally": asdict(progress.tally),
        "waited_s": round(progress.waited_s, 3),
        "holds": [asdict(hold) for hold in progress.holds],
        "shards": dict(progress.shards),
        "trouble": progress.trouble,
        "outcome": None if progress.outcome is None else progress.outcome.value,
    }


def change_json(change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "summary": change.summary,
        "operator": asdict(change.operator),
        "started_at": change.started_at,
        "began_from": change.began_from,
        "slots": change.slots,
        "step": change.step,
        "paused": change.paused,
        "aborting": change.aborting,
    }


# -- verifications


def verification_lines(verification: Verification) -> list[str]:
    looked = f"{verification.shards} shards and {verification.processes} processes"
    lines = [f"epoch {verification.epoch}: {looked} looked at"]
    lines += [f"not as it should be: {flaw}" for flaw in verification.flaws]
    if verification.forgotten:
        lines.append(
            f"memberships of {verification.forgotten:,} groups on former homes, which nobody reads "
            "and which expire (--clean deletes them)"
        )
    if verification.valid:
        lines.append("all is as it should be")
    return lines


def verification_json(verification: Verification) -> dict[str, Any]:
    return {**asdict(verification), "valid": verification.valid}


# -- history


def history_table(entries: Iterable[Entry]) -> Table:
    table = Table("when (UTC)", box=box.SIMPLE)
    table.add_column("epoch", justify="right")
    table.add_column("what")
    table.add_column("who")
    table.add_column("", overflow="fold")
    for entry in entries:
        when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            when, str(entry.epoch), entry.kind.value, Text(str(entry.operator)), Text(entry.summary)
        )
    return table


def history_json(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [
        {
            "at": entry.at,
            "kind": entry.kind.value,
            "operator": asdict(entry.operator),
            "epoch": entry.epoch,
            "summary": entry.summary,
            "change": entry.change,
            "evidence": dict(entry.evidence),
        }
        for entry in entries
    ]
