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
from cluster_layer.lookout import Lookout, open_lookout
from topology.decisions import Decisions
from topology.model import Operator, Topology
from topology.ports import OperatorStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What a verb works with; `topology` is the newest one when the session began.

    Whoever uses `cluster` may bring a topology to a shard; `lookout` changes nothing.
    """

    store: OperatorStore
    decisions: Decisions
    cluster: Administration
    lookout: Lookout
    topology: Topology


@asynccontextmanager
async def open_session(options: StoreOptions) -> AsyncIterator[Session]:
    """TopologyUnavailable if the store has no topology yet."""
    with options.opened() as store:
        decisions = Decisions(store, this_operator())
        topology = await decisions.read()
        async with (
            open_cluster(topology, endpoint_for=options.endpoint_for) as cluster,
            open_lookout(endpoint_for=options.endpoint_for) as lookout,
        ):
            yield Session(store, decisions, cluster, lookout, topology)


def this_operator() -> Operator:
    """Who runs this process, for the history and for whoever finds the lock held."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return Operator(user, socket.gethostname(), os.getpid())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb. SIGTERM cancels it as Ctrl-C does; KeyboardInterrupt if it ends by that."""

    async def until_told_otherwise() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run makes one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(until_told_otherwise())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def carried_through(decision: Coroutine[Any, Any, T]) -> T:
    """What a decision led to. Who is interrupted meanwhile knows what has become of it.

    It is bounded by the store's timeouts. The interruption comes at the caller's next wait.
    """
    task = asyncio.ensure_future(decision)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if (interrupted := asyncio.current_task()) is not None:
            interrupted.cancel()
        return task.result()
