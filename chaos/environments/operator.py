"""Whoever runs the cluster: `cluster-layer` at a shell, and the monitors; as other processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from chaos.environments.base import OPERATOR, EnvironmentFailed
from chaos.environments.control import CommandFailed
from cluster_layer.processes import ChildProcess
from topology.errors import ClusterError
from topology.model import Operator as Place
from topology.model import Topology
from topology.monitor import LEADER_LOCK
from topology.stores import open_store

QUIET_S: Final = "2"  # a shard that was lost must be well for so long before it comes back

_WITHIN_S = 60.0  # of a verb
_LOOK_S = 0.05


class Monitor(Protocol):
    """A monitor, wherever it runs; all calls block."""

    @property
    def running(self) -> bool: ...
    def kill(self) -> None: ...
    def output(self) -> str: ...


class Command(Monitor, Protocol):
    """A command that runs on its own."""

    @property
    def exit_code(self) -> int | None: ...
    def wait(self, timeout_s: float | None = None) -> bool: ...


class Operator:
    """Gives commands against the store of a run's topology; holds `busy` while at a change."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        directory: Path,
        command: Sequence[str] = OPERATOR,
    ) -> None:
        self.busy = asyncio.Lock()
        self.monitors: Sequence[Monitor] = ()
        self._url = url
        self._options = dict(options)
        self._directory = directory
        self._command = command
        self._numbers = itertools.count()

    def begin_change(self, *words: str) -> Command:
        """`cluster-layer shard ...`, which runs on its own."""
        return self.begin("shard", *words, "--yes")

    async def change(self, *words: str) -> None:
        """`cluster-layer shard ...` from beginning to end. CommandFailed."""
        await self.ended(await asyncio.to_thread(self.begin_change, *words), " ".join(words))

    async def take_over(self, verb: str) -> None:
        """`resume` or `abort` what somebody has begun who is gone. CommandFailed."""
        confirmed = ("--yes",) if verb == "abort" else ()
        await self.ended(await asyncio.to_thread(self.begin, verb, "--steal", *confirmed), verb)

    def begin(self, *words: str) -> Command:
        """`cluster-layer ...`, which runs on its own."""
        return self._child(*words)

    def _child(self, *words: str) -> ChildProcess:
        options = self._directory / "store-options.json"
        options.write_text(json.dumps(self._options), encoding="utf-8")
        store = {"CLUSTER_LAYER_STORE": self._url, "CLUSTER_LAYER_STORE_OPTIONS": str(options)}
        return ChildProcess(
            [*self._command, *words],
            output=self.new_log(),
            env={**os.environ, **store},
        )

    async def ended(self, command: Command, what: str) -> None:
        """Wait for a command to have done `what`; CommandFailed."""
        if not await asyncio.to_thread(command.wait, _WITHIN_S):
            await asyncio.to_thread(command.kill)
            raise CommandFailed(f"`cluster-layer {what}` did not end:\n{command.output()}")
        if command.exit_code != 0:
            raise CommandFailed(f"`cluster-layer {what}` failed:\n{command.output()}")

    async def topology(self) -> Topology:
        """The newest one. CommandFailed: it can't be read."""
        return await asyncio.to_thread(self._topology)

    async def until_changing(self, command: Command) -> bool:
        """Wait until a change is under way; False: the command ended before anybody saw one."""
        while await asyncio.to_thread(lambda: command.running):
            if (await self.topology()).change is not None:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    # -- monitors

    async def start_monitors(self, count: int) -> None:
        """Returns when one of them leads. EnvironmentFailed."""
        await asyncio.to_thread(self.run_monitors, count)
        try:
            async with asyncio.timeout(_WITHIN_S):
                while await self.leader() is None:
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            said = "\n".join(monitor.output() for monitor in self.monitors)
            raise EnvironmentFailed(f"no monitor leads:\n{said}") from None

    async def leader(self) -> Monitor | None:
        """The monitor that leads now; None: none does, or nobody knows."""
        return await asyncio.to_thread(self._leader)

    def run_monitors(self, count: int) -> None:
        """From now on there are so many in `monitors`, all running."""
        running = [one for one in self.monitors if one.running]
        missing = range(count - len(running))
        self.monitors = [*running, *(self._new_monitor() for _ in missing)]

    def is_at(self, monitor: Monitor, where: Place) -> bool:
        """Whether the monitor is the one that says of itself that it is there."""
        return isinstance(monitor, ChildProcess) and monitor.pid == where.pid

    def new_log(self) -> Path:
        """Where the next command writes to."""
        return self._directory / f"operator-{next(self._numbers)}.log"

    def close(self) -> None:
        for monitor in self.monitors:
            monitor.kill()

    # -- internals

    def _new_monitor(self) -> Monitor:
        return self._child("monitor", "--quiet-time", QUIET_S)

    def _topology(self) -> Topology:
        try:
            store = open_store(self._url, **self._options)
            try:
                found = store.read()
            finally:
                store.close()
        except ClusterError as error:
            raise CommandFailed(f"reading the topology: {error}") from error
        if found is None:
            raise CommandFailed("there is no topology")
        return found

    def _leader(self) -> Monitor | None:
        try:
            store = open_store(self._url, **self._options)
            try:
                holder = store.holder(LEADER_LOCK)
            finally:
                store.close()
        except ClusterError:
            return None
        if holder is None:
            return None
        where = holder.operator
        return next((one for one in self.monitors if self.is_at(one, where) and one.running), None)
