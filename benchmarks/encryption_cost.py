"""What encryption costs: sends per second with keys and without, in rounds that take turns.

.venv/bin/python -m benchmarks.encryption_cost
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer

ROUNDS = 9
SENDS = 4_000
AT_ONCE = 100
KEYS: dict[str, list[str]] = {"in clear": [], "encrypted": ["a key of the site"]}


async def throughput(server: RedisServer, keys: list[str], *, grouped: bool) -> tuple[float, float]:
    """Sends per second of wall time, and of this process's CPU time."""
    layer = ClusterChannelLayer(
        hosts=[server.url],
        prefix=uuid.uuid4().hex,
        capacity=SENDS + 1,
        symmetric_encryption_keys=keys,
    )
    send: Callable[..., Awaitable[None]] = layer.group_send if grouped else layer.send
    try:
        await layer.open()
        await send("room", {"type": "warm.up"})
        left = iter(range(SENDS))

        async def send_some() -> None:
            for number in left:
                await send(
                    "room", {"type": "chat.message", "n": number, "text": "hello, world" * 8}
                )

        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
        return SENDS / (time.perf_counter() - begun), SENDS / (time.process_time() - cpu)
    finally:
        await layer.close()


def main() -> None:
    """Print medians, and what share of the throughput encryption takes."""
    with RedisServer() as server:
        for grouped in (False, True):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in KEYS}
            for _ in range(ROUNDS):
                for name, keys in KEYS.items():
                    found[name].append(asyncio.run(throughput(server, keys, grouped=grouped)))
            print("group_send" if grouped else "send", f"({AT_ONCE} at once, 120-byte bodies)")
            for index, clock in enumerate(("wall", "client CPU")):
                clear, sealed = (
                    statistics.median(round_[index] for round_ in found[name]) for name in KEYS
                )
                share = 1 - sealed / clear
                print(f"  {clock:10} {clear:8,.0f}/s -> {sealed:8,.0f}/s, {share:.0%} less")


if __name__ == "__main__":
    main()
