"""Child processes that die with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from topology.errors import ClusterError

# Runs between fork and exec, in a fresh interpreter: a preexec_fn would run Python code in a fork
# of a threaded process, which may deadlock. 1 is PR_SET_PDEATHSIG. The parent may have died before
# the call, hence the look at getppid afterwards.
_TIE_TO_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ProcessStartFailed(ClusterError):
    """A child process could not be started; none is left running."""


class ChildProcess:
    """One run of a program, its output in a file; on Linux it is killed when this process dies.

    Safe to start from any thread: the kernel ties a child to the *thread* that forked it, so each
    child gets a thread of its own that lives exactly as long.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        output: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = _tied(command)
        self._output = output
        self._cwd = cwd
        self._env = dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name=f"keeps {command[0]}", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise ProcessStartFailed(f"cannot start {command[0]!r}: {self._failure}")

    @property
    def pid(self) -> int:
        assert self._process is not None  # noqa: S101 - __init__ raised otherwise
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode if self._process and self._ended.is_set() else None

    def output(self, lines: int = 20) -> str:
        """The last lines that it wrote, standard output and error together."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False when it still runs at the deadline."""
        return self._ended.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, also to a paused process; SIGKILL after `grace_s`; returns when it is gone."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self.wait(grace_s):
            self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def _keep(self) -> None:
        try:
            with self._output.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd,
                    env=self._env,
                    # Ctrl-C on a terminal is for this process, which then ends its children.
                    process_group=0,
                )
        except OSError as failure:
            self._failure = failure
            return
        finally:
            self._started.set()
        self._process.wait()
        self._ended.set()


def _tied(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *command]
