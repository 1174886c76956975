"""The program of one process of a run: ``python -m chaos.environments.worker ORDERS.json``.

It says that it is ready, waits for the begin, does its workload, and ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.workloads import WORKLOADS
from chaos.workloads.actor import Actor, AddressBook, Recorder, Times
from cluster_layer import ClusterChannelLayer

_LOOK_S = 0.05
_COUNT_S = 0.25
_BEGIN_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What one life of a process is to do."""

    process: str
    workload: str
    seed: str
    config: dict[str, Any]
    directory: str

    @property
    def events(self) -> Path:
        return Path(self.directory) / f"{self.process}.events"

    @property
    def ready(self) -> Path:
        return Path(self.directory) / f"{self.process}.ready"

    @property
    def begin(self) -> Path:
        return Path(self.directory) / "begin"


async def work(orders: Orders) -> None:
    """One life, from the first to the last event."""
    layer = ClusterChannelLayer(**orders.config)
    await layer.open()
    times = await _begin(orders)
    recorder = Recorder(orders.events)
    book = AddressBook(Path(orders.directory))
    actor = Actor(orders.process, layer, recorder, book, times, orders.seed)
    try:
        await _work_until_the_end(actor, orders.workload)
    finally:
        await layer.close()
        recorder.close()


async def _begin(orders: Orders) -> Times:
    orders.ready.touch()
    async with asyncio.timeout(_BEGIN_WITHIN_S):
        while not orders.begin.exists():
            await asyncio.sleep(_LOOK_S)
    return Times(**json.loads(orders.begin.read_text("utf-8")))


async def _work_until_the_end(actor: Actor, workload: str) -> None:
    left_s = max(0.0, actor.times.ended_s - time.monotonic())
    works = [count_losses(actor)]
    try:
        works += await WORKLOADS[workload].tasks(actor)
    except Exception as error:  # noqa: BLE001 - it belongs into the history, whatever it is
        actor.failed("the beginning", error)
    running = [asyncio.create_task(_watched(actor, one)) for one in works]
    await asyncio.wait(running, timeout=left_s)
    # Those who write have had time to end; whoever has not hangs, and its call shows it.
    actor.count_losses()
    for task in running:
        task.cancel()
    await asyncio.wait(running, timeout=actor.layer.config.timeout)


async def count_losses(actor: Actor) -> None:
    while True:
        await asyncio.sleep(_COUNT_S)
        actor.count_losses()


async def _watched(actor: Actor, work: Any) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - nothing may raise: the history tells what did
        actor.failed(f"task {work!r:.60}", error)


def main() -> None:
    """Entry point; ends with the exit code 0 when the life came to its planned end."""
    orders = Orders(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work(orders))


if __name__ == "__main__":
    main()
