"""Sends to a process-specific channel that nobody reads: the sender's side alone."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
from typing import Any

from redis import Redis

from benchmarks.bench import CPU_METRICS, Bench
from benchmarks.model import Metric
from benchmarks.peers import LAYERS, MESSAGE, Message, append_command, serve_command
from benchmarks.rows.row import Row
from cluster_layer.keys import incarnation_of
from cluster_layer.scripts import INBOX_APPEND

# Of no process that lives, so that no layer does a receiver's work meanwhile.
CHANNEL = "specific.0123456789abcdef!0123456789abcdef"
REQUESTS = 60_000


def _sending(in_flight: int, bars: dict[str, float]) -> Row:
    async def measure(bench: Bench) -> dict[str, float]:
        if bench.peer == "redis-benchmark":
            return {"rate": await _redis_benchmark(bench, in_flight)}
        layer = await bench.layer()
        message: Message = dict(MESSAGE)
        meter = await bench.sustained(
            layer, lambda _worker: layer.send(CHANNEL, message), in_flight
        )
        return {"rate": meter.per_second, **meter.cpu_us()}

    title = f"{in_flight} sends in flight" if in_flight > 1 else "one send at a time"
    rate = Metric("rate", "sends", "1/s", bars=bars)
    peers = (*LAYERS, "bare", "redis-benchmark")
    return Row(f"send/{in_flight}", title, (rate, *CPU_METRICS), peers, measure)


async def _redis_benchmark(bench: Bench, in_flight: int) -> float:
    """The same command from Redis's own load generator, over one connection."""
    client: Any = bench.servers.client()
    client.script_load(INBOX_APPEND.text)
    cluster, life = "0" * 16, _incarnation(client)
    client.execute_command(*serve_command(cluster, life))
    appended = append_command(cluster, life, CHANNEL, MESSAGE)
    command = [str(part) for part in _as_text(appended)]
    program = shutil.which("redis-benchmark")
    if program is None:
        raise FileNotFoundError("no redis-benchmark on PATH (on Debian: redis-tools)")
    port = str(bench.servers.shards[0].port)
    requests = str(bench.few(REQUESTS, 500))
    options = ["-p", port, "-c", "1", "-P", str(in_flight), "-n", requests, "--csv"]
    process = await asyncio.create_subprocess_exec(
        program,
        *options,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if not output.startswith(b'"test","rps"'):
        raise RuntimeError(f"redis-benchmark: {output.decode(errors='replace').strip()}")
    return float(next(csv.DictReader(io.StringIO(output.decode())))["rps"])


def _incarnation(client: Redis) -> str:
    server, replication = client.info("server"), client.info("replication")
    assert isinstance(server, dict)
    assert isinstance(replication, dict)
    return incarnation_of(server["run_id"], replication["master_replid"])


def _as_text(command: tuple[bytes | str | int, ...]) -> list[str | int]:
    """An argument of a program can't hold any byte: the envelope becomes as many letters."""
    return [
        "m" * len(p) if isinstance(p, bytes) and p == command[-1] else _text(p) for p in command
    ]


def _text(part: bytes | str | int) -> str | int:
    return part.decode() if isinstance(part, bytes) else part


ROWS = (
    _sending(1, {"core": 3.5, "pubsub": 1.2, "bare": 0.8}),
    _sending(100, {"core": 12, "pubsub": 9, "bare": 0.8}),
)
