"""An operator at work: the store, the decisions, and the shards."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster_layer.administration import Administration, open_cluster
from cluster_layer.cli.options import StoreOptions
from topology.decisions import Decisions
from topology.model import Operator, Topology
from topology.ports import OperatorStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What a verb works with; `topology` is the newest one when the session began."""

    store: OperatorStore
    decisions: Decisions
    cluster: Administration
    topology: Topology


@asynccontextmanager
async def open_session(options: StoreOptions) -> AsyncIterator[Session]:
    """TopologyUnavailable if the store has no topology yet."""
    with options.opened() as store:
        decisions = Decisions(store, this_operator())
        topology = await decisions.read()
        async with open_cluster(topology) as cluster:
            yield Session(store, decisions, cluster, topology)


def this_operator() -> Operator:
    """Who runs this process, for the history and for whoever finds the lock held."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return Operator(user, socket.gethostname(), os.getpid())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb; SIGTERM cancels it as Ctrl-C does."""

    async def until_told_otherwise() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run makes one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return asyncio.run(until_told_otherwise())
