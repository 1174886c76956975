"""Wall clocks that are wrong."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time

import pytest

from chaos.environments.clock import ClockedRedis
from chaos.environments.control import ask

PROGRAM = """\
import time
from chaos.environments.clock import ProcessClock
clock = ProcessClock()
clock.install()
before, monotonic = time.time(), time.monotonic()
clock.offset_s = -3600.0
assert -3601 < time.time() - before < -3599
assert -3601e9 < time.time_ns() - before * 1e9 < -3599e9
assert time.monotonic() - monotonic < 60
"""


def test_a_process_can_have_another_time() -> None:
    """Its wall clock alone; a deadline by the monotonic clock is not touched."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


async def hours_ahead(server: ClockedRedis) -> int:
    reply = await ask(server.port, "TIME")
    assert isinstance(reply, list)
    assert isinstance(reply[0], bytes)
    return round((int(reply[0]) - time.time()) / 3600)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
async def test_a_shard_can_have_another_time() -> None:
    """From its start or set while it runs; what has expired by then is gone."""
    server = ClockedRedis({})
    try:
        server.set_clock(-7200.0)
        await asyncio.to_thread(server.start)
        assert await hours_ahead(server) == -2
        await ask(server.port, "SET", "name", "value", "EX", "600")
        assert await ask(server.port, "GET", "name") == b"value"
        server.set_clock(0.0)
        assert await hours_ahead(server) == 0
        assert await ask(server.port, "GET", "name") is None
    finally:
        server.close()
