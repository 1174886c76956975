"""Wall clocks that are wrong: those of a process, and those of a redis-server.

Neither touches the clock of the host, which others use. In a process, what ``time.time()`` tells is
shifted: that is where Python programs look, but not every C library. A server's calls to the C
library are shifted by a library that is compiled here and preloaded; that needs a C compiler.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Final

from chaos.environments.base import EnvironmentFailed
from cluster_layer.embedded import RedisServer, find_binary

_SOURCE: Final = Path(__file__).with_name("clock.c")
_COMPILERS: Final = ("cc", "gcc", "clang")
_COMPILE_WITHIN_S = 60.0


class ProcessClock:
    """Shifts what this process's ``time.time()`` and ``time.time_ns()`` tell."""

    def __init__(self) -> None:
        self._seconds, self._nanoseconds = time.time, time.time_ns
        self.offset_s = 0.0

    def install(self) -> None:
        """Before anything is imported that keeps those functions by another name."""
        time.time = lambda: self._seconds() + self.offset_s
        time.time_ns = lambda: self._nanoseconds() + int(self.offset_s * 1e9)


class LocalRedis(RedisServer):
    """An embedded server, which listens on this host alone."""

    host = "127.0.0.1"


class ClockedRedis(LocalRedis):
    """A redis-server whose wall clock can be set."""

    def __init__(self, options: dict[str, str]) -> None:
        library = _library()
        self._files = tempfile.TemporaryDirectory(prefix="clock-")
        self._offset = Path(self._files.name) / "offset"
        self.set_clock(0.0)
        program = Path(self._files.name) / "redis-server"
        program.write_text(
            f"#!/bin/sh\nexec env LD_PRELOAD='{library}' CHAOS_CLOCK='{self._offset}' "
            f"'{find_binary()}' \"$@\"\n",
            encoding="utf-8",
        )
        program.chmod(0o700)
        super().__init__(binary=str(program), options=options)

    def set_clock(self, offset_s: float) -> None:
        """By so many seconds it is ahead, from now on."""
        data = struct.pack("=q", round(offset_s * 1e6))
        if not self._offset.exists():
            self._offset.write_bytes(data)
            return
        with self._offset.open("r+b") as file:  # in place: the server has it mapped
            file.write(data)

    def close(self) -> None:
        super().close()
        self._files.cleanup()


@cache
def _library() -> Path:
    """The compiled library; EnvironmentFailed if there is no compiler."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise EnvironmentFailed(
            "setting a shard's clock needs a C compiler (on Debian: apt-get install gcc libc6-dev)"
        )
    path = Path(tempfile.mkdtemp(prefix="clock-")) / "clock.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(path), str(_SOURCE)],
        capture_output=True,
        text=True,
        timeout=_COMPILE_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise EnvironmentFailed(f"{compiler} cannot compile {_SOURCE.name}:\n{done.stderr}")
    return path
