"""The command line on a terminal of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.command_line import START_AND_RUN_S

ROOT = Path(__file__).parents[2]
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal:
    """What it shows, without colours and cursor movements, and what is typed."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self.process = process
        self._raw = b""
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def shown(self) -> str:
        return _CONTROL.sub(b"", self._raw).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def shows(self, text: str) -> None:
        """Wait until it has shown this text."""
        try:
            async with asyncio.timeout(START_AND_RUN_S):
                while text not in self.shown:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"no {text!r} in {self.shown}") from None

    async def ended(self) -> int:
        """Its exit code, when it has ended."""
        async with asyncio.timeout(START_AND_RUN_S):
            return await self.process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        try:
            self._raw += os.read(self._master, 65536)
        except OSError:  # nobody has the other end open any more
            asyncio.get_running_loop().remove_reader(self._master)


@asynccontextmanager
async def terminal(store: str, *arguments: str) -> AsyncIterator[Terminal]:
    """Killed at the end, if it has not ended by then."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cluster_layer.cli", *arguments),
        cwd=ROOT,
        env={**os.environ, "CLUSTER_LAYER_STORE": store, "TERM": "xterm", "COLUMNS": "160"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    made = Terminal(master, process)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        made.close()
