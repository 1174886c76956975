"""Rules about what shards, processes and monitors know of each other and of the topology."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from cluster_layer.diagnosis.findings import (
    NEARLY_FULL,
    Facts,
    Finding,
    Rule,
    Severity,
    count,
    listed,
    place,
)
from cluster_layer.overview import Condition, condition_of
from cluster_layer.program import command
from topology.codec import MAX_BYTES
from topology.model import Phase, ShardState
from topology.planning import quotas


def _topology_size(facts: Facts) -> Iterator[Finding]:
    size, rule = facts.topology_bytes, "topology.size"
    what = f"{size:,} of at most {MAX_BYTES:,} bytes"
    if size > NEARLY_FULL * MAX_BYTES:
        remedy = "use fewer shards, or shorter shard ids and URLs"
        yield Finding(Severity.WARNING, rule, "topology", what, remedy)
    else:
        yield Finding(Severity.OK, rule, "topology", what)


def _shard_epochs(facts: Facts) -> Iterator[Finding]:
    rule, epoch = "epoch.shards", facts.topology.epoch
    in_use = {s.id for s in facts.topology.shards if s.state is not ShardState.DOWN}
    statuses = [s for s in facts.reached if s.shard in in_use]
    ahead = [s for s in statuses if (s.epoch or 0) > epoch]
    blank = [s.shard for s in statuses if not s.epoch]
    behind = [s for s in statuses if 0 < (s.epoch or 0) < epoch]
    for status in ahead:
        what = f"it serves epoch {status.epoch}, and the store has {epoch}: it was set back"
        remedy = "processes keep the newer one; restore the store's newest topology"
        if facts.overview.store.trouble is not None:
            what = f"it serves epoch {status.epoch}, newer than the copy of {epoch} shown here"
            remedy = "look again when the store is back"
        yield Finding(Severity.PROBLEM, rule, status.shard, what, remedy)
    for status in behind:
        what = f"it serves epoch {status.epoch} of {epoch}"
        remedy = "the next process that writes there brings it; look again"
        yield Finding(Severity.WARNING, rule, status.shard, what, remedy)
    if blank:
        what = f"no topology has come to {listed(blank)} yet"
        remedy = "the first process that connects brings it"
        yield Finding(Severity.NOTE, rule, "shards", what, remedy)
    elif statuses and not ahead and not behind:
        yield Finding(Severity.OK, rule, "shards", f"all serve epoch {epoch}")


def _processes(facts: Facts) -> Iterator[Finding]:
    rule, epoch = "process.well", facts.topology.epoch
    found = facts.overview.applications()
    silent = [one for one in found if condition_of(one) is Condition.SILENT]
    behind = [one for one in found if condition_of(one) is Condition.WELL and one.epoch < epoch]
    for one in silent:
        what = f"connected, and silent for {one.age_s:.0f} s, at epoch {one.epoch} of {epoch}"
        remedy = "it is stopped, or its event loop is blocked: look at it, or end it"
        yield Finding(Severity.WARNING, rule, place(one), what, remedy)
    for one in behind:
        why = f"; {one.waiting_for}" if one.waiting_for else ""
        what = f"at epoch {one.epoch} of {epoch}{why}"
        remedy = "it hears of the newest by every shard that it reaches; look again"
        yield Finding(Severity.WARNING, rule, place(one), what, remedy)
    well = [one for one in found if condition_of(one) is Condition.WELL]
    if not well and not silent:
        what = "no process uses the layer, or none reaches a shard"
        yield Finding(Severity.NOTE, rule, "processes", what, "start your site")
    elif not silent and not behind:
        receiving = sum(one.receives for one in well)
        what = f"{count(well, 'process', 'processes')} at epoch {epoch}, {receiving} receiving"
        yield Finding(Severity.OK, rule, "processes", what)


def _versions(facts: Facts) -> Iterator[Finding]:
    rule = "process.version"
    versions = Counter(
        report.version
        for report in facts.overview.processes.values()
        if condition_of(report) is not Condition.GONE
    )
    if len(versions) > 1:
        what = ", ".join(f"{count} x {version}" for version, count in sorted(versions.items()))
        remedy = "fine while they are being upgraded"
        yield Finding(Severity.NOTE, rule, "processes", what, remedy)
    elif versions and facts.version and facts.version not in versions:
        what = f"they have version {next(iter(versions))}, this command {facts.version}"
        yield Finding(Severity.NOTE, rule, "processes", what, "use the same version")
    elif versions:
        yield Finding(Severity.OK, rule, "processes", f"all have version {next(iter(versions))}")


def _views(facts: Facts) -> Iterator[Finding]:
    """Shards that processes and monitors cannot reach."""
    rule = "process.reaches"
    observers = [
        report
        for report in facts.overview.processes.values()
        if condition_of(report) is Condition.WELL
    ]
    known = {shard.id for shard in facts.topology.shards if shard.state is not ShardState.DOWN}
    without: dict[str, list[str]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for report in observers:
        for shard, reason in report.unreachable.items():
            if shard in known:
                without[shard].append(place(report))
                reasons[shard] = reason
    for shard, places in sorted(without.items()):
        everybody = len(places) == len(observers)
        what = (
            f"{len(places)} of {len(observers)} processes and monitors cannot reach it "
            f"({reasons[shard]}): {listed(places)}"
        )
        remedy = "look at the network between them and the shard, or at CONFIG addresses"
        if everybody:
            remedy = "look at the shard and its network"
        severity = Severity.PROBLEM if everybody else Severity.WARNING
        yield Finding(severity, rule, shard, what, remedy)
    if observers and not without:
        what = "every process and monitor reaches every shard"
        yield Finding(Severity.OK, rule, "processes", what)


def _monitors(facts: Facts) -> Iterator[Finding]:
    rule, monitors = "monitor.running", facts.overview.monitors()
    if not monitors:
        what = "no monitor runs: a lost shard stays lost until an operator marks it as down"
        remedy = f"run `{command('monitor')}` on two or three hosts"
        yield Finding(Severity.WARNING, rule, "monitors", what, remedy)
        return
    if facts.overview.store.trouble is None and not any(map(facts.overview.leads, monitors)):
        what = f"{count(monitors, 'monitor')}, and none of them leads"
        remedy = (
            "one takes over within its session's timeout; else see whether it reaches the store"
        )
        yield Finding(Severity.WARNING, rule, "monitors", what, remedy)
    elif len(monitors) == 1:
        what = "one monitor runs"
        remedy = "run two or three, on different hosts"
        yield Finding(Severity.NOTE, rule, "monitors", what, remedy)
    else:
        what = f"{count(monitors, 'monitor')}, one leads"
        yield Finding(Severity.OK, rule, "monitors", what)


def _balance(facts: Facts) -> Iterator[Finding]:
    rule, topology = "topology.balance", facts.topology
    if topology.change is not None or topology.phase is not Phase.STEADY:
        return
    held = topology.table.counts()
    uneven = []
    if any(shard.state is ShardState.UP for shard in topology.shards):
        wanted = quotas(topology.shards, held)
        uneven = [
            f"{shard} has {held.get(shard, 0):,} slots, and {slots:,} by its weight"
            for shard, slots in wanted.items()
            if abs(held.get(shard, 0) - slots) > 1
        ]
    if uneven:
        what = listed(uneven, "; ")
        remedy = "plan --balance, and apply"
        yield Finding(Severity.NOTE, rule, "topology", what, remedy)
    else:
        yield Finding(Severity.OK, rule, "topology", "slots are shared out by weight")
    draining = [s.id for s in topology.shards if s.state is ShardState.DRAINING]
    if draining:
        what = f"drained, and still there: {listed(draining)}"
        remedy = "shard remove, or shard mark up to use it again"
        yield Finding(Severity.NOTE, rule, "topology", what, remedy)


def _change(facts: Facts) -> Iterator[Finding]:
    rule, progress = "change", facts.overview.progress()
    change = facts.topology.change
    if progress is None or change is None:
        yield Finding(Severity.OK, rule, "topology", "no change is under way")
        return
    what = (
        f"{change.summary}, begun by {change.operator}: {progress.slots_done:,} of "
        f"{progress.slots:,} slots, {progress.stage.value}"
    )
    if change.paused is not None:
        remedy = "resume, or abort"
        yield Finding(
            Severity.WARNING, rule, "topology", f"paused ({change.paused}): {what}", remedy
        )
        return
    holder = facts.overview.operator
    if holder is None and facts.overview.store.trouble is None:
        what = f"nobody drives it: {what}"
        yield Finding(Severity.WARNING, rule, "topology", what, "resume, or abort")
    else:
        yield Finding(Severity.NOTE, rule, "topology", what)
    for hold in facts.overview.holds():
        yield Finding(Severity.NOTE, rule, f"{hold.host}/{hold.pid}", f"waited for: {hold.reason}")


RULES: Final[Sequence[Rule]] = (
    _topology_size,
    _shard_epochs,
    _processes,
    _versions,
    _views,
    _monitors,
    _balance,
    _change,
)
