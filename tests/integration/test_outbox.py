"""examples/outbox, run as its README says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_order_is_shipped_exactly_once() -> None:
    """A consumer and all shards are killed meanwhile; some messages have to be sent again."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.outbox"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert "every order was shipped exactly once" in done.stdout
    found = re.search(r"300 orders, (\d+) messages sent", done.stdout)
    assert found is not None
    assert int(found[1]) > 300  # at most once alone would have lost these
