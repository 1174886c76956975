"""`python -m cluster_layer.demo`, the module behind scripts/demo, as its user runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_REPOSITORY = Path(__file__).resolve().parents[2]
_COMMAND = [sys.executable, "-m", "cluster_layer.demo"]


def test_check_accounts_for_every_message(tmp_path: Path) -> None:
    """A check ends with exit code 0, having killed a shard and lost nothing outside the outage."""
    outcome = subprocess.run(
        [*_COMMAND, "--check", "--seconds", "8", "--rooms", "4", "--clients", "3"],
        cwd=_REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    print(outcome.stdout)
    assert "shard-2 was killed with -9 and came back blank" in " ".join(outcome.stdout.split())
    assert re.search(r"seconds to heal.*\d\.\d\d", outcome.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_end_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends servers and shards, and removes their files.

    Also where SIGINT was ignored from the start, as shells do for what they put in the background.
    """
    with subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *_COMMAND],
        cwd=_REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        assert any("Ctrl-C ends it all" in line for line in lines)
        started = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        assert demo.wait(timeout=60) == 0
    assert len(started) == 5
    eventually(lambda: not any(process.is_running() for process in started))
    assert list(tmp_path.iterdir()) == []
