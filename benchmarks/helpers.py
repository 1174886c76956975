"""Other processes that take part in a cell: members, readers, traffic of their own.

Requests and answers are lines of JSON on a helper's standard input and output. A helper ends when
its input does, so none survives the cell.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any

from benchmarks.audience import Audience, join
from benchmarks.peers import MESSAGE, Layer, make_layer
from benchmarks.servers import Addresses

Answer = dict[str, Any]
Serve = Callable[[dict[str, Any]], Awaitable[Answer]]
Role = Callable[[Layer, dict[str, Any]], Awaitable[Serve]]

IN_FLIGHT = 50


class Helper:
    """One helper, as the cell sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, request: dict[str, Any]) -> Answer:
        """One request and its answer; a helper answers one after another."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a helper has ended")
        answer: Answer = json.loads(line)
        return answer


@asynccontextmanager
async def start_helpers(
    count: int, role: str, peer: str, addresses: Addresses, **options: Any
) -> AsyncIterator[list[Helper]]:
    """So many helpers in one role, ready."""
    given = json.dumps({"role": role, "peer": peer, **asdict(addresses), **options})
    async with AsyncExitStack() as stack:
        helpers = [await stack.enter_async_context(_started(given)) for _ in range(count)]
        await asyncio.gather(*(helper.ask({}) for helper in helpers))
        yield helpers


@asynccontextmanager
async def _started(given: str) -> AsyncIterator[Helper]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.helpers",
        given,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Helper(process)
    finally:
        process.kill()
        await process.wait()


# -- in the helper


async def _members(layer: Layer, options: dict[str, Any]) -> Serve:
    """Members of a group; asked to `reach` a count, says when it was reached."""
    channels = await join(layer, options["members"], options["group"])
    audience = Audience(layer, channels)

    async def answer(request: dict[str, Any]) -> Answer:
        await audience.reach(request["reach"])
        return {"count": audience.delivered}

    return answer


async def _reader(layer: Layer, options: dict[str, Any]) -> Serve:
    """One reader of a normal channel; says how much it has received."""
    audience = Audience(layer, [options["channel"]])

    async def answer(_request: dict[str, Any]) -> Answer:
        return {"count": audience.delivered}

    return answer


async def _traffic(layer: Layer, _options: dict[str, Any]) -> Serve:
    """Sends to itself for so many `seconds`; says how much."""
    channels = [await layer.new_channel() for _ in range(IN_FLIGHT)]

    async def answer(request: dict[str, Any]) -> Answer:
        end = time.monotonic() + request["seconds"]

        async def go(channel: str) -> int:
            done = 0
            while time.monotonic() < end:
                await layer.send(channel, MESSAGE)
                await layer.receive(channel)
                done += 1
            return done

        return {"count": sum(await asyncio.gather(*(go(channel) for channel in channels)))}

    return answer


_ROLES: dict[str, Role] = {"members": _members, "reader": _reader, "traffic": _traffic}


async def _serve(options: dict[str, Any]) -> None:
    layer = await make_layer(options["peer"], Addresses(tuple(options["redis"]), options["nats"]))
    answer = await _ROLES[options["role"]](layer, options)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        print(json.dumps(await answer(request) if request else {}), flush=True)
    os._exit(0)  # receivers that wait would each complain about a loop that ends


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
