"""Operating system processes with a layer, in as many lives as it takes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from chaos.environments.base import EnvironmentFailed, Plan
from chaos.environments.control import CommandFailed
from chaos.environments.orders import Orders
from chaos.history import Life
from cluster_layer.processes import ChildProcess

_START_WITHIN_S = 60.0
_LOOK_S = 0.02

END: Final = "end"  # the command to stop writing, then reading, then to go

#: Wraps a command so that it runs where the process belongs, in its own network say.
Launch = Callable[[Sequence[str]], Sequence[str]]


def plainly(command: Sequence[str]) -> Sequence[str]:
    return command


class WorkerProcess:
    """One process of a run; `lives` are those that have ended."""

    def __init__(
        self,
        index: int,
        plan: Plan,
        directory: Path,
        *,
        config: Mapping[str, Any],
        hosts: Sequence[str] = (),
        redirect: Path | None = None,
        launch: Launch = plainly,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`config` are settings that only this process has, `environment` are more variables."""
        self.index = index
        self.name = f"p{index}"
        self.lives: list[Life] = []
        self.surgery = asyncio.Lock()  # of what ends it and starts another, one at a time
        self._plan = plan
        self._launch = launch
        self._environment = {**os.environ, **(environment or {})}
        self._orders = Orders(
            process="",
            workload=plan.workload,
            seed=plan.seed,
            layer=plan.layer,
            config={**plan.config, **config},
            hosts=list(hosts),
            directory=str(directory),
            redirect=str(redirect or ""),
        )
        self._child: ChildProcess | None = None
        self._began_s = 0.0
        self._ready_s = 0.0
        self._left_s: float | None = None  # when it stopped reading, as it was told
        self._commands = 0

    @property
    def life(self) -> str:
        return f"{self.name}.{len(self.lives)}"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self, *, later: bool | None = None) -> None:
        """A new life; `later` says whether it writes as a later version does (None: as before)."""
        if self.running:
            return
        later = self._orders.later if later is None else later
        orders = self._orders = replace(self._orders, process=self.life, later=later)
        self._began_s = time.monotonic()
        self._left_s = None
        self._ready_s = 0.0
        self._commands = 0
        output = Path(orders.directory) / f"{self.life}.log"
        command = self._launch([*self._plan.worker, str(orders.write())])
        self._child = ChildProcess(command, output=output, env=self._environment)

    async def ready(self) -> None:
        """Wait until it is; EnvironmentFailed with its last words if it ended before."""
        async with asyncio.timeout(_START_WITHIN_S):
            while not self._orders.ready.exists():
                if not self.running:
                    said = self._child.output() if self._child else "it was not started"
                    raise EnvironmentFailed(f"process {self.life} ended early:\n{said}")
                await asyncio.sleep(_LOOK_S)
        self._ready_s = time.monotonic()

    async def command(self, what: str, within_s: float, **details: Any) -> None:
        """Have the process do something; CommandFailed if it has not done so in time."""
        orders, number = self._orders, self._commands
        self._commands += 1
        line = json.dumps({"do": what, **details}) + "\n"
        try:
            async with asyncio.timeout(within_s):
                await asyncio.to_thread(_append, orders.commands, line)
                while self.running and _lines_in(orders.done) <= number:
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise CommandFailed(f"process {orders.process} has not done {what!r}") from None
        if _lines_in(orders.done) <= number:
            raise CommandFailed(f"process {orders.process} ended before it did {what!r}")
        if what == END:
            self._left_s = time.monotonic()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._child is not None:
            self._child.kill()
            self._note_end(killed=True)

    def pause(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGCONT)

    async def ended(self, within_s: float) -> None:
        """Wait for the planned end; EnvironmentFailed if it does not come or is not orderly."""
        child = self._child
        if child is None:
            return
        life = self.life
        if not await asyncio.to_thread(child.wait, within_s):
            self.kill()
            said = child.output()
            raise EnvironmentFailed(f"process {life} did not end by itself:\n{said}")
        code = child.exit_code
        self._note_end(killed=False)
        if code != 0:
            raise EnvironmentFailed(f"process {life} ended with {code}:\n{child.output()}")

    def _note_end(self, *, killed: bool) -> None:
        ended_s = self._left_s or time.monotonic()
        self.lives.append(Life(self.life, self._began_s, ended_s, killed, self._ready_s))
        self._child = None


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def _lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
