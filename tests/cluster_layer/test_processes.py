"""Child processes: their end, their words, and nobody left behind."""

import signal
import sys
from pathlib import Path

import pytest

from cluster_layer.processes import ChildProcess
from tests.support.waiting import eventually


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


def python(program: str, output: Path) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", program], output=output)


def test_its_end_and_its_words_are_kept(output: Path) -> None:
    """Exit code and last lines, standard output and error together, outlive the process."""
    program = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
    child = python(program, output)
    assert child.wait(30)
    assert (child.running, child.exit_code, child.output(lines=1)) == (False, 3, "two")
    assert child.output() == "one\ntwo"


def test_a_command_that_does_not_exist_ends_with_the_reason(output: Path) -> None:
    """What cannot be executed ends at once, and its output says why."""
    child = ChildProcess(["/nonexistent/program"], output=output)
    assert child.wait(30)
    assert (child.exit_code, "FileNotFoundError" in child.output()) == (1, True)


def test_stop_does_not_wait_for_those_who_do_not_listen(output: Path) -> None:
    """A process that ignores SIGTERM is killed when its time is over."""
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = python(f"{ignore}\nprint('deaf', flush=True)\nwhile True: time.sleep(1)", output)
    eventually(lambda: child.output() == "deaf")
    child.stop(grace_s=0.1)
    assert (child.running, child.exit_code) == (False, -signal.SIGKILL)


def test_signals_after_the_end_reach_nobody(output: Path) -> None:
    """Ending a process that has ended is no error, and can hit no other one."""
    child = python("pass", output)
    assert child.wait(30)
    child.signal(signal.SIGKILL)
    child.stop()
    child.kill()
    assert child.exit_code == 0
