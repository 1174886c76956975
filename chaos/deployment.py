"""The check of a whole deployment: the site of docker-compose.yml under talk and trouble.

Clients talk through the balancer while containers are killed, paused and cut off and a fourth shard
is added; then every message is accounted for, as in the demo's check.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from websockets.exceptions import WebSocketException

from chaos.environments.compose import MONITORS, NEW_SHARD, SHARDS, ZOOKEEPERS, ComposeSite
from cluster_layer.demo.consumers import group_of
from cluster_layer.demo.ledger import Outage, Outcome
from cluster_layer.demo.status import status_of
from cluster_layer.demo.talk import (
    CheckFailed,
    Conversation,
    Progress,
    spread_clients,
    spread_rooms,
)
from topology.errors import ClusterError

WEB_HOSTS: Final = ("web-1", "web-2")
_ALERTS: Final = ("ShardNotConnected", "EpochsDiffer", "ReaderStalled", "WebHostDown")

_HEALTHY_TIMEOUT_S = 180.0
_STEADY_TIMEOUT_S = 120.0
_ADD_TIMEOUT_S = 180.0
_DICE_TIMEOUT_S = 30.0
_CANDIDATE_ROOMS = 200


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """How much is said and how long each trouble lasts, in seconds."""

    clients: int = 12
    pause_s: float = 0.25  # between two messages of one client
    rooms_per_shard: int = 6
    quiet_s: float = 4.0  # between two troubles
    trouble_s: float = 4.0
    heal_limit_s: float = 5.0
    brief: bool = False  # a web host, a fourth shard and a shard's death; not the rest


def bring_up(site: ComposeSite, tell: Callable[[str], None]) -> None:
    """All hosts run, are healthy, and have their first topology. EnvironmentFailed."""
    tell("bringing the site up")
    site.up()
    site.wait_healthy([*ZOOKEEPERS, *SHARDS], _HEALTHY_TIMEOUT_S)
    tell("the first topology")
    site.operator("start-cluster")
    site.wait_healthy([*WEB_HOSTS, "worker", *MONITORS, "balancer"], _HEALTHY_TIMEOUT_S)
    site.wait_for("the balancer serves", lambda: _serves(site.url), _HEALTHY_TIMEOUT_S)
    tell("Prometheus")
    site.up("prometheus", profile="metrics")
    _watched(site)


async def run_deployment_check(
    site: ComposeSite, plan: DeploymentPlan, progress: Progress, tell: Callable[[str], None]
) -> Outcome:
    """Talk, make every trouble in turn, and account for every message.

    CheckFailed when it could not be carried out, so that it says nothing about the messages.
    """
    try:
        return await _carry_out(site, plan, progress, tell)
    except* (ClusterError, WebSocketException, TimeoutError, OSError) as group:
        raise CheckFailed("; ".join(f"{e!r}" for e in group.exceptions)) from group


async def _carry_out(
    site: ComposeSite, plan: DeploymentPlan, progress: Progress, tell: Callable[[str], None]
) -> Outcome:
    groups = [group_of(f"room-{number}") for number in range(1, _CANDIDATE_ROOMS + 1)]
    places = await asyncio.to_thread(site.homes, groups)
    homes = spread_rooms(SHARDS, plan.rooms_per_shard, places.__getitem__)
    clients = spread_clients([site.url], plan.clients, homes, returns=True, pause_s=plan.pause_s)
    talk = Conversation(clients, homes)
    async with talk.going_on():
        if len({client.host for client in clients}) < len(WEB_HOSTS):
            raise CheckFailed("the balancer sent all clients to one web host")
        troubles = _Troubles(site, plan, talk, progress)
        await troubles.throw_dice()
        await troubles.make_all()
        await troubles.throw_dice()
        await talk.end(troubles.outages, progress)
    await asyncio.to_thread(_verify, site)
    losses: Counter[str] = Counter()
    for host in WEB_HOSTS:
        losses.update((await asyncio.to_thread(_status_of, site, host))["lost"])
    ledger = talk.ledger
    for line in troubles.losses_told():
        tell(line)
    return Outcome(ledger.accounts(troubles.outages), troubles.outages, ledger.strangers, losses)


class _Troubles:
    """What is done to the site while the clients talk, and which rooms that may have cost."""

    def __init__(
        self, site: ComposeSite, plan: DeploymentPlan, talk: Conversation, progress: Progress
    ) -> None:
        self._site = site
        self._plan = plan
        self._talk = talk
        self._progress = progress
        self.outages: list[Outage] = []
        self._phases: list[tuple[float, str]] = []  # since when, what

    async def make_all(self) -> None:
        """Those first that may not cost a single message."""
        await self._talk.pass_time("all hosts up", self._plan.quiet_s, self._progress)
        troubles = [
            self._kill_zookeeper_leader,
            self._pause_monitor_leader,
            self._kill_web_host,
            self._add_shard,
            self._pause_shard,
            self._cut_off_shard,
            self._kill_shard,
        ]
        if self._plan.brief:
            troubles = [self._kill_web_host, self._add_shard, self._kill_shard]
        for trouble in troubles:
            self._phases.append((time.monotonic(), str(trouble.__doc__)))
            await trouble()
            await self._until_steady()
            self._phases.append((time.monotonic(), "all is well again"))
            await self._talk.pass_time("steady again", self._plan.quiet_s, self._progress)

    def losses_told(self) -> Iterator[str]:
        """What nothing excuses, by what was going on when it was sent."""
        found: dict[str, list[float]] = defaultdict(list)
        members: dict[str, set[str]] = defaultdict(set)
        for sent_at, _, without in self._talk.ledger.unexcused(self.outages):
            since, phase = max(
                (one for one in self._phases if one[0] <= sent_at), default=(sent_at, "before")
            )
            found[phase] += [sent_at - since] * len(without)
            members[phase] |= set(without)
        for phase, seconds in found.items():
            yield (
                f"{len(seconds)} deliveries lost: {phase} After {min(seconds):.1f} to "
                f"{max(seconds):.1f} s; members: {', '.join(sorted(members[phase]))}"
            )

    async def throw_dice(self) -> None:
        """Every client asks for one throw; the worker makes it. CheckFailed."""
        before = {client.name: client.thrown for client in self._talk.clients}
        for client in self._talk.clients:
            await client.throw(client.rooms[0])
        deadline = time.monotonic() + _DICE_TIMEOUT_S
        while any(client.thrown == before[client.name] for client in self._talk.clients):
            if time.monotonic() > deadline:
                raise CheckFailed("the worker did not throw the dice for everybody")
            await self._talk.pass_time("dice", 0.2, self._progress)
        if any(client.thrown > before[client.name] + 1 for client in self._talk.clients):
            raise CheckFailed("the worker threw the dice twice for somebody")

    async def _kill_zookeeper_leader(self) -> None:
        """The leading ZooKeeper server is killed and started again."""
        servers = (await self._do("look", self._site.status))["store"]["servers"]
        leader = next(one["address"] for one in servers if one["role"] == "leader")
        service = leader.partition(":")[0]
        await self._do(f"{service}, the leader, killed", self._site.kill, service)
        await self._talk.pass_time(
            f"{service}, the leader, killed", self._plan.trouble_s, self._progress
        )
        await self._do(f"{service} started", self._site.start, service)
        await self._do(f"{service} started", self._site.wait_healthy, [service], _HEALTHY_TIMEOUT_S)

    async def _pause_monitor_leader(self) -> None:
        """The leading monitor is paused until another one leads."""
        monitors = (await self._do("look", self._site.status))["monitors"]
        hosts = {await self._do("look", self._site.host_of, one): one for one in MONITORS}
        leader = hosts[next(one["host"] for one in monitors if one["leads"])]
        phase = f"{leader}, the leading one, paused"
        await self._do(phase, self._site.pause, leader)
        # Longer than its session: the other one leads in the end.
        await self._do(
            phase,
            self._site.wait_for,
            "the other monitor leads",
            self._other_leads(await self._do("look", self._site.host_of, leader)),
            _STEADY_TIMEOUT_S,
        )
        await self._do(phase, self._site.unpause, leader)

    def _other_leads(self, host: str) -> Callable[[], bool]:
        def leads() -> bool:
            monitors = self._site.status()["monitors"]
            return any(one["leads"] and one["host"] != host for one in monitors)

        return leads

    async def _kill_web_host(self) -> None:
        """A web host is killed with -9 and started again."""
        host = WEB_HOSTS[0]
        await self._do(f"{host} killed with -9", self._site.kill, host)
        await self._talk.pass_time(f"{host} killed with -9", self._plan.trouble_s, self._progress)
        await self._do(f"{host} started", self._site.start, host)
        await self._do(f"{host} started", self._site.wait_healthy, [host], _HEALTHY_TIMEOUT_S)

    async def _add_shard(self) -> None:
        """A fourth shard is added."""
        phase = f"{NEW_SHARD} is added"
        await self._do(phase, lambda: self._site.up(NEW_SHARD, profile="more"))
        await self._do(phase, self._site.wait_healthy, [NEW_SHARD], _HEALTHY_TIMEOUT_S)
        await self._do(
            phase,
            lambda: self._site.operator("add-shard", NEW_SHARD, "--yes", timeout_s=_ADD_TIMEOUT_S),
        )

    async def _pause_shard(self) -> None:
        """A shard is paused."""
        shard, rooms = "shard-3", await self._rooms_on("shard-3")
        since = time.monotonic()
        await self._do(f"{shard} paused", self._site.pause, shard)
        await self._talk.pass_time(f"{shard} paused", self._plan.trouble_s, self._progress)
        await self._do(f"{shard} goes on", self._site.unpause, shard)
        self._note(shard, since, time.monotonic(), rooms, "was paused and went on")

    async def _cut_off_shard(self) -> None:
        """A shard's cable is pulled."""
        shard, rooms = "shard-1", await self._rooms_on("shard-1")
        since = time.monotonic()
        await self._do(f"{shard} cut off", self._site.disconnect, shard)
        await self._talk.pass_time(f"{shard} cut off", self._plan.trouble_s, self._progress)
        await self._do(f"{shard} reachable", self._site.connect, shard)
        self._note(shard, since, time.monotonic(), rooms, "was cut off and came back")

    async def _kill_shard(self) -> None:
        """A shard is killed with -9; the others serve its names before it is started again."""
        shard, rooms = "shard-2", await self._rooms_on("shard-2")
        since = time.monotonic()
        await self._do(f"{shard} killed with -9", self._site.kill, shard)
        killed = time.monotonic()
        how = "was killed with -9, and the others took its names"
        self._note(shard, since, killed, rooms, how, returns=False)
        longer = self._plan.trouble_s + self._plan.heal_limit_s
        await self._talk.pass_time(f"{shard} killed with -9", longer, self._progress)
        await self._do(f"{shard} started", self._site.start, shard)

    async def _rooms_on(self, shard: str) -> frozenset[str]:
        rooms = list(self._talk.homes)
        places = await self._do("look", self._site.homes, [group_of(room) for room in rooms])
        return frozenset(room for room in rooms if places[group_of(room)] == shard)

    async def _until_steady(self) -> None:
        await self._do(
            "until all is well",
            self._site.wait_for,
            "all is well",
            self._is_steady,
            _STEADY_TIMEOUT_S,
        )

    def _is_steady(self) -> bool:
        status = self._site.status()
        shards_up = all(one["state"] == "up" and one["reachable"] for one in status["shards"])
        parts = [*status["processes"], *status["monitors"]]
        parts_well = all(one["state"] == "well" and not one["unreachable"] for one in parts)
        enough = len(status["processes"]) >= len(WEB_HOSTS) and status["change"] is None
        return bool(status["phase"] == "steady" and shards_up and parts_well and enough)

    async def _do(self, phase: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run what takes a while in a thread, and go on showing how the talk does."""
        task = asyncio.create_task(asyncio.to_thread(work, *arguments))
        while not task.done():
            await self._talk.pass_time(phase, 0.2, self._progress)
        return await task

    def _note(
        self,
        shard: str,
        since: float,
        until: float,
        rooms: frozenset[str],
        how: str,
        *,
        returns: bool = True,
    ) -> None:
        limit_s = self._plan.heal_limit_s
        self.outages.append(Outage(shard, since, until, limit_s, rooms, how, returns))


def _watched(site: ComposeSite) -> None:
    """Prometheus scrapes every web host, and can evaluate every alert. EnvironmentFailed."""
    targets = {f"{host}:8000": "up" for host in WEB_HOSTS}
    site.wait_for(
        "Prometheus scrapes all web hosts",
        lambda: site.prometheus.targets() == targets,
        _HEALTHY_TIMEOUT_S,
    )
    site.wait_for(
        "every alert is evaluated",
        lambda: set(site.prometheus.rules("health").values()) == {"ok"},
        _HEALTHY_TIMEOUT_S,
    )


def _calm(site: ComposeSite) -> bool:
    """Whether no alert fires about what is now; those about losses look back for minutes."""
    states = site.prometheus.rules("state")
    return {states.get(alert) for alert in _ALERTS} == {"inactive"}


def _verify(site: ComposeSite) -> None:
    """The operator's checks agree, and Prometheus sees all that it should. EnvironmentFailed."""
    _watched(site)
    site.wait_for("the alerts of the troubles end", lambda: _calm(site), _STEADY_TIMEOUT_S)
    site.operator("cluster-layer", "verify")
    # Exit code 0 also with notes; a warning or a problem is a failure here.
    site.operator("cluster-layer", "check")


def _status_of(site: ComposeSite, host: str) -> dict[str, Any]:
    text = site.operator("python", "-m", "cluster_layer.demo.status", f"http://{host}:8000")
    status: dict[str, Any] = json.loads(text)
    return status


def _serves(url: str) -> bool:
    with suppress(OSError, ValueError):
        return bool(status_of(url)["host"])
    return False
