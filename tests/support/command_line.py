"""The command line in a process of its own, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]

START_AND_RUN_S = 80.0  # an interpreter that starts among many others takes its time


@dataclass
class Running:
    """One run of it, and what it has said so far."""

    process: asyncio.subprocess.Process
    within_s: float = START_AND_RUN_S  # of a line, and of the end
    lines: list[Line] = field(default_factory=list)
    errors: str = ""

    async def line(self) -> Line | None:
        """The next line; None: it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(self.within_s):
            data = await self.process.stdout.readline()
        if not data:
            return None
        self.lines.append(json.loads(data))
        return self.lines[-1]

    async def until(self, condition: Callable[[Line], bool]) -> Line:
        """The next line of this kind, which must come."""
        while (line := await self.line()) is not None:
            if condition(line):
                return line
        raise AssertionError(f"it ended: {self.lines[-3:]} {await self.ended()} {self.errors}")

    async def ended(self) -> int:
        """Its exit code, when it has ended."""
        async with asyncio.timeout(self.within_s):
            while await self.line() is not None:
                pass
            assert self.process.stderr is not None
            self.errors += (await self.process.stderr.read()).decode()
            return await self.process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class CommandLine:
    """For one store; everything that is said is JSON."""

    def __init__(self, store: str, within_s: float = START_AND_RUN_S) -> None:
        """`within_s`: how long a run may take, or be silent."""
        self._within_s = within_s
        self._environment = {**os.environ, "CLUSTER_LAYER_STORE": store}

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Running]:
        """Killed at the end, if it has not ended by then."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cluster_layer.cli", *arguments),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        try:
            yield Running(process, self._within_s)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def run(self, *arguments: str, code: int = 0) -> list[Line]:
        """What a run said that must end with this exit code: its lines, or its document."""
        async with self.running(*arguments, "--json") as running:
            async with asyncio.timeout(self._within_s):
                said, errors = await running.process.communicate()
            ended = running.process.returncode
            assert ended == code, (arguments, ended, said[-2000:], errors)
            return _parsed(said)

    async def killed_after(self, steps: int, *arguments: str) -> bool:
        """SIGKILL after so many steps have been told; False if it ended before."""
        async with self.running(*arguments, "--json") as running:
            while steps and (line := await running.line()) is not None:
                steps -= not waits(line)
            if steps:
                return False
            running.kill()
            return await running.ended() == -signal.SIGKILL


def waits(line: Line) -> bool:
    """Whether it tells of waiting, and of no step."""
    reasons = ("holds", "shards", "trouble")
    return line.get("event") == "progress" and any(line[reason] for reason in reasons)


def _parsed(said: bytes) -> list[Line]:
    try:
        document = json.loads(said)
    except ValueError:
        return [json.loads(line) for line in said.splitlines()]
    return document if isinstance(document, list) else [document]
