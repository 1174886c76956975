"""From a plan to its end: look, ask, begin, drive; and what else is done to a change under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from cluster_layer.cli import options, render_changes, wishes
from cluster_layer.cli.asking import consent
from cluster_layer.cli.driving import LOOK_EVERY_S, drive, resumable
from cluster_layer.cli.exits import Refused, Unfinished
from cluster_layer.cli.how import How
from cluster_layer.cli.session import Session, carried_through, open_session
from cluster_layer.cli.watchers import JsonLines, teller
from cluster_layer.overview import Permissions
from topology import transitions
from topology.atomic import replace_file
from topology.codec import encode
from topology.errors import IllegalTransition, LockHeld
from topology.model import Change, ShardState, Topology
from topology.plans import Plan, encode_plan
from topology.ports import Lock, ShardStatus
from topology.prechecks import (
    Objection,
    concerned,
    estimated_bytes,
    objections_to,
    objections_to_loss,
)
from topology.progress import Outcome

MakePlan = Callable[[Session], Awaitable[Plan]]
_NO_CHANGE_ID = "0" * 16


@dataclass(frozen=True, slots=True)
class Assessment:
    """A plan, and what speaks against it now."""

    plan: Plan
    topology: Topology
    statuses: Mapping[str, ShardStatus]
    objections: Sequence[Objection]

    def show(self, *, as_json: bool) -> None:
        sizes = estimated_bytes(self.plan, self.topology, self.statuses)
        if as_json:
            fields = render_changes.plan_json(self.plan, self.topology, sizes, self.objections)
            JsonLines().tell("plan", "", **fields)
        else:
            options.show(
                render_changes.plan_picture(self.plan, self.topology, sizes, self.objections)
            )

    def require_none(self, forced: Collection[str]) -> None:
        """Refused unless all objections are overridden."""
        _require_overridden(self.objections, forced)


async def carry_out(store: options.StoreOptions, make_plan: MakePlan, how: How) -> None:
    """Plan, show, check, ask, begin, and drive to the end; or only the first three."""
    async with open_session(store) as session:
        if how.dry_run:
            await _assess_and_show(session, make_plan, how)
            return
        async with session.decisions.at_work(steal=how.steal) as lock:
            assessment = await _assess_and_show(session, make_plan, how)
            if _changes_nothing(assessment):
                _tell(how, "ended", "there is nothing to do", outcome="finished", slots=0)
                return
            await _require_consent(how, "Execute this plan?")
            async with resumable(session):
                begun = await carried_through(
                    session.decisions.begin(assessment.plan, step=how.step)
                )
                await _drive_to_end(session, begun, lock, how, Outcome.FINISHED)


async def resume(store: options.StoreOptions, how: How) -> None:
    """Go on with the change under way, whoever began it."""
    async with open_session(store) as session:
        if how.dry_run:
            change = _require_change(session.topology, "resume")
            text = f"would go on with {change.summary!r}"
            _tell(how, "would", text, epoch=session.topology.epoch)
            return
        async with session.decisions.at_work(steal=how.steal) as lock, resumable(session):
            topology = await carried_through(session.decisions.resume())
            aborting = topology.change is not None and topology.change.aborting
            wanted = Outcome.ABORTED if aborting else Outcome.FINISHED
            await _drive_to_end(session, topology, lock, how, wanted)


async def abort(store: options.StoreOptions, how: How) -> None:
    """End the change under way; undo its round if there is one."""
    async with open_session(store) as session:
        topology = session.topology
        change = _require_change(topology, "abort")
        if how.dry_run:
            _tell(how, "would", f"would abort {change.summary!r}", epoch=topology.epoch)
            return
        if not change.aborting:
            await _require_consent(how, f"Abort {change.summary!r}?")
        async with resumable(session):
            if not change.aborting:
                topology = await carried_through(session.decisions.abort())
            await _drive_or_watch(session, topology, how, change.id)


async def _drive_or_watch(session: Session, topology: Topology, how: How, change_id: str) -> None:
    """Until the change is undone: by whoever drives it, and by us once nobody does."""
    told_of: object = None
    while True:
        try:
            async with session.decisions.at_work(steal=how.steal) as lock:
                await _drive_to_end(session, topology, lock, how, Outcome.ABORTED)
                return
        except LockHeld as error:
            if error.holder != told_of:
                told_of = error.holder
                _tell(how, "watching", f"{error.holder} drives the change, and undoes it")
        await asyncio.sleep(LOOK_EVERY_S)
        topology = await session.decisions.read()
        if topology.change is None or topology.change.id != change_id:
            _tell(how, "ended", f"aborted, at epoch {topology.epoch}", outcome="aborted")
            return


async def mark_down(store: options.StoreOptions, shards: Sequence[str], how: How) -> None:
    """Give the slots of lost shards to the others, at once."""
    async with open_session(store) as session:
        wishes.require_known(session.topology, shards)
        reason = f"marked as down by its operator: {', '.join(shards)}"
        transitions.rehome(session.topology, shards, reason)  # refuses what cannot be
        statuses = await session.lookout.statuses(session.topology)
        objections = objections_to_loss(statuses[shard] for shard in shards)
        lost = {shard: len(session.topology.slots_of(shard)) for shard in shards}
        text = ", ".join(f"{slots:,} slots of {shard}" for shard, slots in lost.items())
        _tell(how, "loss", f"{text} go to the others; what is on them is lost", slots=lost)
        _require_overridden(objections, how.forced)
        if how.dry_run:
            return
        await _require_consent(how, "Mark as down?")
        marking = session.decisions.mark_down(session.cluster, shards, reason)
        after = await carried_through(marking)
        up = [shard.id for shard in after.shards if shard.state is not ShardState.DOWN]
        missing = await session.cluster.install(after, up)
        for shard, why in missing.items():
            _tell(how, "warning", f"shard {shard} does not know yet: {why}", shard=shard)
        _tell(how, "ended", f"done, at epoch {after.epoch}", outcome="finished", epoch=after.epoch)


async def assess(session: Session, plan: Plan, step: int) -> Assessment:
    """What speaks against a plan. StaleEpoch, ChangeUnderWay, TopologyInvalid, TopologyTooLarge."""
    topology = await session.decisions.read()
    begun = transitions.begin(
        topology,
        plan,
        change_id=_NO_CHANGE_ID,
        operator=session.decisions.operator,
        started_at=0,
        step=step,
    )
    if plan.moves:
        encode(transitions.prepare(begun))  # the largest that there will be
    servers, statuses = await asyncio.gather(
        asyncio.to_thread(session.store.servers), session.lookout.statuses(begun)
    )
    reports = await session.lookout.processes(topology, statuses)
    # A monitor has no layer, and so no prefix.
    prefixes = {report.prefix for report in reports.values() if report.prefix}
    refused = await session.lookout.permissions(begun, statuses, prefixes)
    # A shard that leaves without a slot is needed for nothing.
    needed = [shard for shard in concerned(plan, topology) if shard in statuses]
    statuses = {shard: _with_permissions(statuses[shard], refused.get(shard)) for shard in needed}
    objections = objections_to(plan, topology, statuses, servers, reports.values())
    return Assessment(plan, topology, statuses, objections)


def _with_permissions(status: ShardStatus, refused: Permissions | None) -> ShardStatus:
    return status if refused is None else replace(status, missing_permissions=refused.all)


async def _assess_and_show(session: Session, make_plan: MakePlan, how: How) -> Assessment:
    assessment = await assess(session, await make_plan(session), how.step)
    assessment.show(as_json=how.as_json)
    if how.out is not None:
        save(assessment.plan, how.out)
    assessment.require_none(how.forced)
    return assessment


def save(plan: Plan, path: Path) -> None:
    """For its owner alone: the URLs of shards may hold passwords."""
    try:
        replace_file(path, encode_plan(plan), keep_access=False)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error


async def _drive_to_end(
    session: Session, topology: Topology, lock: Lock, how: How, wanted: Outcome
) -> None:
    """Unfinished if the change ends in another way than wanted."""
    change = topology.change
    with teller(as_json=how.as_json) as told:
        if change is not None:
            told.tell("begun", f"change {change.id}", **render_changes.change_json(change))
        outcome = await drive(session, told, lock, how)
    if change is None:
        outcome = wanted  # there was nothing left to do but to tell the shards
    after = await session.decisions.read()
    _tell(
        how,
        "ended",
        f"{outcome.value}, at epoch {after.epoch}",
        outcome=outcome.value,
        epoch=after.epoch,
    )
    if outcome is not wanted:
        raise Unfinished(f"the change has ended: {outcome.value}")


def _changes_nothing(assessment: Assessment) -> bool:
    plan, topology = assessment.plan, assessment.topology
    return not plan.moves and set(plan.shards) == set(topology.shards)


def _require_overridden(objections: Sequence[Objection], forced: Collection[str]) -> None:
    left = [objection for objection in objections if objection.check not in forced]
    if left:
        raise Refused(left)


async def _require_consent(how: How, question: str) -> None:
    if not how.yes:
        await consent(question)


def _require_change(topology: Topology, verb: str) -> Change:
    """IllegalTransition if none is under way."""
    if topology.change is None:
        raise IllegalTransition(f"cannot {verb}: no change is under way")
    return topology.change


def _tell(how: How, event: str, text: str, **fields: object) -> None:
    if how.as_json:
        JsonLines().tell(event, text, **fields)
    else:
        click.echo(text)
