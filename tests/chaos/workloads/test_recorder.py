"""What is written down survives a kill -9."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from chaos.history import Header, Operation, Outcome, Verb, event_of, history_of, parse
from chaos.workloads.recorder import Recorder

HEADER = Header("story", 1, 0.0, 1.0, 2.0, 1.0, 60.0, ("P1",))
OPERATION = Operation("p0.0:1", "p0.0", "w", Verb.SEND, "a!b", "shard-0", 1.5, number=7)

KILLED = """\
import os, signal, sys
from pathlib import Path
from chaos.workloads.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]))
for number in range(50_000):
    recorder.delivered("p0.0", "a!b", f"p0.0/w/{number}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_events_can_be_read_again(tmp_path: Path) -> None:
    """With everything in them, also an error with quotes."""
    recorder = Recorder(tmp_path / "events")
    recorder.invoked(OPERATION)
    recorder.completed(OPERATION.id, Outcome.UNKNOWN, 'it said "no"')
    recorder.delivered("p1.0", "a!b", "p0.0/w/7")
    recorder.close()
    recorder.delivered("p1.0", "a!b", "too late")
    with (tmp_path / "events").open(encoding="utf-8") as lines:
        history = history_of([event_of(HEADER), *parse(lines)])
    (found,) = history.operations.values()
    assert (found.name, found.number, found.invoked_s) == ("a!b", 7, 1.5)
    assert (found.outcome, found.error) == (Outcome.UNKNOWN, 'it said "no"')
    assert [delivery.message for delivery in history.deliveries] == ["p0.0/w/7"]


def test_a_killed_process_has_lost_no_event(tmp_path: Path) -> None:
    """More than fits into the file as it was made; the rest of it is empty."""
    path = tmp_path / "events"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    with path.open(encoding="utf-8") as lines:
        events = parse(lines)
    assert len(events) == 50_000
    assert events[-1]["message"] == "p0.0/w/49999"
