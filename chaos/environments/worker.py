"""The program of one process of a run: ``python -m chaos.environments.worker ORDERS.json``.

It says that it is ready, waits for the begin, does its workload, and ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from chaos.environments.clock import ProcessClock
from chaos.environments.orders import Orders
from chaos.environments.redirect import redirect_connections
from chaos.history import Stall
from chaos.layers import make
from chaos.workloads import WORKLOADS
from chaos.workloads.actor import Actor, AddressBook, Times
from chaos.workloads.recorder import Recorder

_LOOK_S = 0.05
_COUNT_S = 0.25
_BEGIN_WITHIN_S = 120.0


class Life:
    """One life of a process, from the first to the last event."""

    def __init__(self, orders: Orders, clock: ProcessClock) -> None:
        self._orders = orders
        self._clock = clock
        self._ending = asyncio.Event()

    async def live(self) -> None:
        orders = self._orders
        layer = make(orders.layer, orders.config, orders.hosts)
        await layer.open()
        times = await self._begin()
        recorder = Recorder(orders.events)
        book = AddressBook(Path(orders.directory))
        actor = Actor(orders.process, layer, recorder, book, times, orders.seed)
        try:
            await self._work(actor)
        finally:
            await layer.close()
            recorder.close()

    async def _begin(self) -> Times:
        self._orders.ready.touch()
        async with asyncio.timeout(_BEGIN_WITHIN_S):
            while not self._orders.begin.exists():
                await asyncio.sleep(_LOOK_S)
        return Times(**json.loads(self._orders.begin.read_text("utf-8")))

    async def _work(self, actor: Actor) -> None:
        works = [count_losses(actor)]
        try:
            works += await WORKLOADS[self._orders.workload].tasks(actor)
        except Exception as error:  # noqa: BLE001 - it belongs into the history, whatever it is
            actor.failed("the beginning", error)
        running = [asyncio.create_task(_watched(actor, one)) for one in works]
        obeying = asyncio.create_task(self._obey(actor))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, actor.times.ended_s - time.monotonic())):
                await self._ending.wait()
        # Those who write have had time to end; whoever has not hangs, and its call shows it.
        actor.count_losses()
        for task in (*running, obeying):
            task.cancel()
        await asyncio.wait([*running, obeying], timeout=actor.layer.timeout_s)

    async def _obey(self, actor: Actor) -> None:
        """Carry out commands one after the other, and say so."""
        done = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._orders.commands.exists():
                continue
            lines = self._orders.commands.read_text("utf-8").splitlines()
            for line in lines[done:]:
                await self._do(actor, json.loads(line))
                done += 1
                with self._orders.done.open("a", encoding="utf-8") as file:
                    file.write("done\n")

    async def _do(self, actor: Actor, command: dict[str, Any]) -> None:
        match command["do"]:
            case "block":
                began_s = time.monotonic()
                time.sleep(command["seconds"])  # noqa: ASYNC251 - that is the fault
                actor.record(Stall(actor.process, began_s, time.monotonic()))
            case "set-clock":
                self._clock.offset_s = command["offset_s"]
            case "end":
                await self._end(actor)
            case unknown:
                actor.failed("a command", ValueError(f"{unknown!r} is none"))

    async def _end(self, actor: Actor) -> None:
        """Stop writing, give what is on its way time to arrive, and go."""
        actor.stop_writing()
        await asyncio.sleep(actor.layer.timeout_s)
        self._ending.set()


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
    orders = Orders.read(Path(sys.argv[1]))
    clock = ProcessClock()
    clock.install()
    if orders.redirect:
        redirect_connections(Path(orders.redirect))
    if orders.later:
        # Imported here: only then is anything of the layer changed.
        from chaos.environments.later import become_later

        become_later()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Life(orders, clock).live())


if __name__ == "__main__":
    main()
