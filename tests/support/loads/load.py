"""The processes of a load, from their start to what they have written down."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster_layer.processes import ChildProcess
from tests.support.loads.flows import Shape, Traffic, keys_of, normal_channels, traffic_of
from tests.support.loads.process import Orders, publish
from tests.support.loads.records import Record, Records
from tests.support.waiting import eventually_async

ROOT = Path(__file__).parents[3]
_START_S = 60.0
_STOP_S = 60.0
_QUIET_S = 6.0  # without anything arriving, three deadlines of the layer
_LATE_S = 0.5  # for what should not come any more
_LOOK_S = 0.05


class LoadProcess:
    """One process of a load; it dies with the process that started it."""

    def __init__(self, orders: Orders) -> None:
        self.name = orders.name
        self._orders = orders
        path = orders.file("orders")
        publish(path, asdict(orders))
        command = [sys.executable, "-m", "tests.support.loads.process", str(path)]
        self.child = ChildProcess(command, output=orders.file("log"), cwd=ROOT)

    @property
    def pid(self) -> int:
        return self.child.pid

    def pause(self) -> None:
        """SIGSTOP."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.child.signal(signal.SIGCONT)

    def told(self, kind: str) -> Any:
        """What it has published; None: nothing yet."""
        path = self._orders.file(kind)
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    async def tells(self, kind: str, within_s: float) -> Any:
        def looked() -> Any:
            assert self.child.running, f"{self.name} has ended:\n{self.child.output()}"
            return self.told(kind) is not None

        await eventually_async(looked, within_s, f"{self.name}: {kind}")
        return self.told(kind)

    async def stats(self) -> dict[str, Any]:
        """What its layer counted, as of a moment ago."""
        now: dict[str, Any] = await self.tells("now", _START_S)
        stats: dict[str, Any] = now["stats"]
        return stats


class Load:
    """Several processes that write to each other; use as an asynchronous context manager.

    `configs`: the CONFIG of each process, which share a prefix. Writing begins with `begin`.
    """

    def __init__(
        self,
        directory: Path,
        configs: Sequence[Mapping[str, Any]],
        shape: Shape,
        *,
        name: str = "p",
    ) -> None:
        self.traffic: Traffic
        self.processes: list[LoadProcess] = []
        self._directory = directory
        self._shape = shape
        self._configs = [dict(config) for config in configs]
        self._names = [f"{name}{index}" for index in range(len(configs))]

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        keys = keys_of(self._shape, self._names)
        try:
            for name, config in zip(self._names, self._configs, strict=True):
                where, normal = str(self._directory), normal_channels(self._shape)
                self.processes.append(LoadProcess(Orders(name, where, config, keys, normal)))
            channels = {one.name: await one.tells("ready", _START_S) for one in self.processes}
        except BaseException:
            self.kill()
            raise
        self.traffic = traffic_of(self._shape, channels)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        for one in self.processes:
            one.child.kill()

    def begin(self) -> None:
        publish(self._directory / "begin", self.traffic.as_json())

    async def finish(self) -> Records:
        """Stop writing, wait for what is on its way, end all processes."""
        publish(self._directory / "stop", True)
        counts: dict[int, int] = {}
        for one in self.processes:
            written = await one.tells("written", _STOP_S)
            counts |= {int(flow): count for flow, count in written.items()}
        await self._arrived(_expected(self.traffic, counts))
        publish(self._directory / "end", True)
        records = {}
        for one in self.processes:
            assert await asyncio.to_thread(one.child.wait, _STOP_S), f"{one.name} does not end"
            assert one.child.exit_code == 0, f"{one.name}:\n{one.child.output(60)}"
            records[one.name] = Record.load(self._directory / f"{one.name}.record")
        return Records(records)

    async def _arrived(self, expected: int) -> None:
        """Return when as much has come as there should, or nothing comes any more."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET_S and before < expected:
            arrived = sum(one.told("now")["arrived"] for one in self.processes)
            if arrived != before:
                before, since = arrived, time.monotonic()
            await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(_LATE_S)


def _expected(traffic: Traffic, counts: Mapping[int, int]) -> int:
    """How many deliveries there are if nothing fails."""
    return sum(
        len(traffic.addressees(traffic.flows[flow].target_of(number)))
        for flow, count in counts.items()
        for number in range(count)
    )
