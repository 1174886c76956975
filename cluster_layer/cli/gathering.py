"""What the looking verbs show, gathered from the store and the shards; nothing there changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from cluster_layer.cli.options import StoreOptions
from cluster_layer.cli.session import this_operator
from cluster_layer.config import default_topology_cache
from cluster_layer.diagnosis import Facts, Finding, diagnose, diagnose_store
from cluster_layer.lookout import Lookout, open_lookout
from cluster_layer.overview import Overview, StoreView
from cluster_layer.program import command
from topology.atomic import read_at_most
from topology.codec import MAX_BYTES, decode, encode
from topology.decisions import OPERATOR_LOCK
from topology.errors import (
    ClusterError,
    LockHeld,
    StoreUnavailable,
    TopologyError,
    TopologyInvalid,
    TopologyUnavailable,
)
from topology.history import Holder
from topology.model import Topology
from topology.monitor import LEADER_LOCK
from topology.ports import OperatorStore

_TRIAL_LOCK = "check"


class Gatherer:
    """Looks at one store and its shards, as often as it is asked to; belongs to one loop."""

    def __init__(
        self, options: StoreOptions, store: OperatorStore, lookout: Lookout, copy: Path | None
    ) -> None:
        self._options = options
        self._store = store
        self._lookout = lookout
        self._copy = copy

    async def overview(self) -> Overview:
        """One look. TopologyError: there is no topology to be had, not even an old copy."""
        topology, trouble = await asyncio.to_thread(self._topology)
        view = StoreView(
            kind=self._options.kind,
            servers=tuple(await asyncio.to_thread(self._store.servers)),
            trouble=trouble,
            login=self._options.has_login,
        )
        statuses = await self._lookout.statuses(topology)
        return Overview(
            topology,
            view,
            statuses=statuses,
            processes=await self._lookout.processes(topology, statuses),
            leader=None if trouble else await asyncio.to_thread(self._holder, LEADER_LOCK),
            operator=None if trouble else await asyncio.to_thread(self._holder, OPERATOR_LOCK),
        )

    async def findings(self, prefixes: tuple[str, ...]) -> tuple[Finding, ...]:
        """A diagnosis; also when there is no topology."""
        try:
            overview = await self.overview()
        except TopologyError as error:
            return diagnose_store(
                StoreView(
                    kind=self._options.kind,
                    servers=tuple(await asyncio.to_thread(self._store.servers)),
                    trouble=str(error),
                    empty=isinstance(error, TopologyUnavailable),
                    login=self._options.has_login,
                )
            )
        if overview.store.trouble is None:
            unwritable = await asyncio.to_thread(self._unwritable)
            overview = replace(overview, store=replace(overview.store, unwritable=unwritable))
        topology, statuses = overview.topology, overview.statuses
        known = {report.prefix for report in overview.applications()} | set(prefixes)
        facts = Facts(
            overview,
            permissions=await self._lookout.permissions(topology, statuses, sorted(known)),
            leftovers=await self._lookout.leftovers(topology, statuses),
            topology_bytes=len(encode(topology)),
            version=version("cluster-layer"),
        )
        return diagnose(facts)

    # -- the store; all of these block

    def _topology(self) -> tuple[Topology, str | None]:
        """The topology; or a copy of it, and why it is one."""
        try:
            found = self._store.read()
        except (StoreUnavailable, TopologyInvalid) as error:
            copy = None if self._copy is None else last_good(self._copy)
            if copy is None:
                raise
            return copy, f"{error}; a copy of epoch {copy.epoch} is used ({self._copy})"
        if found is None:
            create = command("init")
            raise TopologyUnavailable(f"{self._options} has no topology; `{create}` creates one")
        return found, None

    def _holder(self, lock: str) -> Holder | None:
        try:
            return self._store.holder(lock)
        except ClusterError:
            return None

    def _unwritable(self) -> str | None:
        """Why operators cannot write, tried with a lock that nobody else wants."""
        try:
            self._store.lock(_TRIAL_LOCK, Holder(this_operator(), time.time())).release()
        except LockHeld:
            return None  # somebody else is trying the same
        except StoreUnavailable as error:
            return str(error)
        return None


@asynccontextmanager
async def gathering(
    options: StoreOptions, *, timeout_s: float, copy: Path | None
) -> AsyncIterator[Gatherer]:
    """A gatherer whose connections are closed at the end. StoreConfigError."""
    copy = copy or default_topology_cache(options.url)
    with options.opened() as store:
        async with open_lookout(
            timeout_s=timeout_s, connect_timeout_s=timeout_s, endpoint_for=options.endpoint_for
        ) as lookout:
            yield Gatherer(options, store, lookout, copy)
            # Ending a session with ZooKeeper may take its time.
            await asyncio.to_thread(store.close)


def last_good(path: Path) -> Topology | None:
    """The copy that a process keeps of the last good topology; None if there is none."""
    try:
        data = read_at_most(path, MAX_BYTES)
        return None if data is None else decode(data)
    except (OSError, TopologyInvalid):
        return None
