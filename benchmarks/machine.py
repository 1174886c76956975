"""Where a run is made, and with what versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.model import Machine
from benchmarks.servers import ServerMissing, find_nats, redis_binary

_PACKAGES = (
    "channels",
    "cluster-layer",
    "redis",
    "hiredis",
    "channels_redis",
    "channels-nats",
    "nats-py",
)


def this_machine() -> Machine:
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    versions["redis-server"] = _said_by([redis_binary(), "--version"])
    with suppress(ServerMissing):
        versions["nats-server"] = _said_by([find_nats(), "--version"])
    return Machine(
        made_at=datetime.now(UTC).isoformat(timespec="minutes"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        load=round(os.getloadavg()[1], 1),
        versions=versions,
    )


def _said_by(command: Sequence[str]) -> str:
    """The word of a program's --version that is a version."""
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    numbers = [word.removeprefix("v=").removeprefix("v").rstrip(",") for word in words]
    return next((number for number in numbers if number[:1].isdigit()), "unknown")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
