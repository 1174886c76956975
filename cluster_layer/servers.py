"""What servers for development, demos and tests have in common: a directory, and one process."""

import os
import shutil
import signal
import tempfile
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster_layer.processes import ChildProcess


class Server(ABC):
    """A server that can be started again in its directory, which goes with `close()`."""

    def __init__(self, program: str) -> None:
        self._process: ChildProcess | None = None
        self.directory = Path(tempfile.mkdtemp(prefix=f"{program}-"))
        self._remove_directory = weakref.finalize(self, _remove, self.directory, os.getpid())

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start it, unless it runs, and return when it serves."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def kill(self) -> None:
        """SIGKILL: it saves nothing."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers until `resume()`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        self._remove_directory()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(number)


def _remove(directory: Path, owner: int) -> None:
    # A forked child inherits this finalizer, but not the server.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
