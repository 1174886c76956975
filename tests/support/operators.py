"""The operator's command line, as a process of its own, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually_async

COMMAND = str(Path(sys.executable).with_name("cluster-layer"))
_WITHIN_S = 120.0

Line = dict[str, Any]


class Command:
    """``cluster-layer ... --json`` at work: one object per line that it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[Line] = []
        self.errors = ""
        self._process = process
        self._readers = (
            asyncio.create_task(self._read_lines()),
            asyncio.create_task(self._read_errors()),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def says(self, wanted: Callable[[Line], Any], within_s: float = _WITHIN_S) -> Line:
        """The first line that is wanted."""

        def found() -> Line | None:
            line = next((line for line in self.lines if wanted(line)), None)
            assert line or self.running, f"it has ended:\n{self.errors}{self.lines[-3:]}"
            return line

        line = await eventually_async(found, within_s, "a line of the command")
        assert line is not None
        return line

    async def ended(self, within_s: float = _WITHIN_S) -> int:
        """Its exit code."""
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._readers)
            return await self._process.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.running:
            self._process.send_signal(number)

    async def _read_lines(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.lines.append(json.loads(line))

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.errors += line.decode()


@asynccontextmanager
async def commanded(store: str, *words: str) -> AsyncIterator[Command]:
    """A command that runs; killed at the end if it still does."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *words,
        "--json",
        env={**os.environ, "CLUSTER_LAYER_STORE": store},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    command = Command(process)
    try:
        yield command
    finally:
        command.kill()
        await command.ended()


async def operate(store: str, *words: str) -> list[Line]:
    """Let the command come to its end, which must be a good one; what it said."""
    async with commanded(store, *words) as command:
        code = await command.ended()
        assert code == 0, f"{' '.join(words)}: exit code {code}\n{command.errors}"
        return command.lines
