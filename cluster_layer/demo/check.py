"""The demo without a person: clients talk in rooms on all shards while one of them is killed."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from websockets.exceptions import WebSocketException

from cluster_layer.demo.ledger import Outage, Outcome
from cluster_layer.demo.site import Site
from cluster_layer.demo.status import status_of
from cluster_layer.demo.talk import (
    CheckFailed,
    Conversation,
    Progress,
    spread_clients,
    spread_rooms,
)
from topology.errors import ClusterError

# A shard that is back must serve all its rooms again within this time.
_HEAL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """How much, how long: a third of the time before the kill, a sixth down, the rest after."""

    seconds: float = 20.0
    rooms_per_shard: int = 8
    clients_per_server: int = 6

    @property
    def before_s(self) -> float:
        return self.seconds / 3

    @property
    def down_s(self) -> float:
        return self.seconds / 6

    @property
    def after_s(self) -> float:
        """Longer than healing may take: messages after that time are what is judged."""
        return max(self.seconds / 2, _HEAL_LIMIT_S + 2.0)


async def run_check(site: Site, plan: CheckPlan, progress: Progress) -> Outcome:
    """Talk, kill a shard, bring it back blank, talk on, and account for every message.

    CheckFailed when a connection to a server breaks, or a room cannot be joined.
    """
    try:
        return await _carry_out(site, plan, progress)
    except* (ClusterError, WebSocketException, TimeoutError, OSError) as group:
        raise CheckFailed("; ".join(f"{e!r}" for e in group.exceptions)) from group


async def _carry_out(site: Site, plan: CheckPlan, progress: Progress) -> Outcome:
    homes = spread_rooms(
        list(site.shards), plan.rooms_per_shard, lambda group: site.topology.shard_of(group).id
    )
    clients = spread_clients(site.urls, plan.clients_per_server * len(site.urls), homes)
    talk = Conversation(clients, homes)
    async with talk.going_on():
        outages = [await _make_outage(site, plan, talk, progress)]
        await talk.end(outages, progress)
    losses: Counter[str] = Counter()
    for url in site.urls:
        losses.update((await asyncio.to_thread(status_of, url))["lost"])
    return Outcome(talk.ledger.accounts(outages), outages, talk.ledger.strangers, losses)


async def _make_outage(
    site: Site, plan: CheckPlan, talk: Conversation, progress: Progress
) -> Outage:
    shard = sorted(site.shards)[len(site.shards) // 2]
    server = site.shards[shard]
    await talk.pass_time("all shards up", plan.before_s, progress)
    killed_at = time.monotonic()
    await asyncio.to_thread(server.kill)
    site.write_state()
    await talk.pass_time(f"{shard} killed with -9", plan.down_s, progress)
    await asyncio.to_thread(server.start)
    back_at = time.monotonic()
    site.write_state()
    await talk.pass_time(f"{shard} back, blank", plan.after_s, progress)
    site.raise_if_a_server_ended()
    return Outage(shard, killed_at, back_at, _HEAL_LIMIT_S)
