"""What one shard, one process and ZooKeeper meet in a cluster of many shards and processes.

Run it as ``python -m benchmarks.capacity --shards 64 --processes 1000``. What one process opens is
measured on a few real shards; what an idle one costs is the difference that a hundred layers make
to real shards that have nothing else to do; one real shard meets as many connections and
announcements as it would among all these processes; a change of the topology is driven through the
coordinator over simulated shards and processes. The rest is multiplication, and is shown as such.
``--only-idle`` measures idle layers alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import click
import psutil
import redis
import redis.asyncio
from rich.console import Console
from rich.table import Table

from cluster_layer import ClusterChannelLayer
from cluster_layer.embedded import RedisServer
from topology import Shard
from topology.codec import encode
from topology.coordinator import Coordinator
from topology.decisions import Decisions
from topology.memory_cluster import MemoryCluster, MemoryProcess
from topology.model import Operator
from topology.planning import initial_topology, plan
from topology.stores import open_store

_FEW, _MORE = 2, 6  # shards; what one more costs is the difference
_IDLE_SHARDS, _IDLE_LAYERS = 3, 100
_LOOK_S = 10.0
_ROUNDS = 20
_OPERATOR = Operator("ada", "ops-1.example", 4711)


@dataclass(frozen=True, slots=True)
class Process:
    """What one process with a receiver and a group opens at each shard, and needs for it."""

    connections: float
    bytes_per_shard: float


@dataclass(frozen=True, slots=True)
class Idle:
    """What one process that has nothing to do costs each shard, and itself for each shard."""

    commands_per_s: float  # those that scripts call included
    shard_cpu_share: float  # of one core
    process_cpu_share: float
    commands: dict[str, float]  # name -> per second


@dataclass(frozen=True, slots=True)
class Storm:
    """What one shard with so many subscribers does for one announcement."""

    connection_bytes: float
    shard_cpu_s: float
    last_after_s: float


async def measure_process() -> Process:
    await _open_process(1)  # what a first layer imports and allocates is not asked for
    few, more = await _open_process(_FEW), await _open_process(_MORE)
    return Process(more[0], (more[1] - few[1]) / (_MORE - _FEW))


async def _open_process(shards: int) -> tuple[float, float]:
    """Connections at a shard; bytes of this process."""
    with ExitStack() as stack:
        servers, consoles = _start(stack, shards)
        before = psutil.Process().memory_info().rss
        layer = ClusterChannelLayer(hosts=[one.url for one in servers])
        try:
            receiver = await _settle_down(layer, shards)
            connections = [len(one.client_list()) - 1 for one in consoles]
            grown = psutil.Process().memory_info().rss - before
            receiver.cancel()
        finally:
            await layer.close()
    return sum(connections) / shards, grown


async def measure_idle(shards: int = _IDLE_SHARDS, layers: int = _IDLE_LAYERS) -> Idle:
    """What a shard does for so many idle layers, less what it does alone, for one of them.

    One layer alone would be charged with the shard's own clockwork, and with a cold cache for each
    of its commands.
    """
    with ExitStack() as stack:
        servers, consoles = _start(stack, shards)
        alone = await _look(servers, consoles)
        opened = [ClusterChannelLayer(hosts=[one.url for one in servers]) for _ in range(layers)]
        try:
            receivers = [await _settle_down(layer, shards) for layer in opened]
            busy = await _look(servers, consoles)
            for receiver in receivers:
                receiver.cancel()
        finally:
            for layer in opened:
                await layer.close()
    share = 1 / (_LOOK_S * shards * layers)
    calls = {name: count * share for name, count in (busy[2] - alone[2]).items()}
    return Idle(
        sum(calls.values()), (busy[0] - alone[0]) * share, (busy[1] - alone[1]) * share, calls
    )


def _start(stack: ExitStack, shards: int) -> tuple[list[RedisServer], list[redis.Redis]]:
    servers = [stack.enter_context(RedisServer()) for _ in range(shards)]
    return servers, [stack.enter_context(redis.Redis.from_url(one.url)) for one in servers]


async def _settle_down(layer: ClusterChannelLayer, shards: int) -> asyncio.Task[Any]:
    """Wait at a channel that is in a group on every shard."""
    channel = await layer.new_channel()
    receiver = asyncio.create_task(layer.receive(channel))
    for number in range(20 * shards):
        await layer.group_add(f"group-{number}", channel)
    return receiver


async def _look(
    servers: list[RedisServer], consoles: list[redis.Redis]
) -> tuple[float, float, Counter[str]]:
    """CPU seconds of all shards, and of this process, and calls, while nothing is asked for."""
    await asyncio.sleep(1)
    for console in consoles:
        console.config_resetstat()
    before = _cpu_s(servers), time.process_time()
    await asyncio.sleep(_LOOK_S)
    after = _cpu_s(servers), time.process_time()
    calls: Counter[str] = Counter()
    for console in consoles:
        info: dict[str, Any] = console.info("commandstats")  # type: ignore[assignment]
        for name, stats in info.items():
            calls[name.removeprefix("cmdstat_").replace("|", " ")] += stats["calls"]
    return after[0] - before[0], after[1] - before[1], calls


def _cpu_s(servers: list[RedisServer]) -> float:
    return sum(sum(psutil.Process(one.pid).cpu_times()[:2]) for one in servers)


async def measure_storm(processes: int) -> Storm:
    """One shard, a subscriber for each process, one announcement after another."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        console = stack.enter_context(redis.Redis.from_url(server.url))
        empty = _memory(console)
        port = server.port
        readers = []
        for _ in range(processes):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(b"SUBSCRIBE epochs\r\n")
            readers.append(reader)
        await asyncio.gather(*(_read(reader, b":1\r\n") for reader in readers))
        bytes_each = (_memory(console) - empty) / processes
        process, took_s = psutil.Process(server.pid), 0.0
        cpu_before = sum(process.cpu_times()[:2])
        for number in range(_ROUNDS):
            began = time.perf_counter()
            console.publish("epochs", str(number))
            await asyncio.gather(*(_read(r, f"\r\n{number}\r\n".encode()) for r in readers))
            took_s += time.perf_counter() - began
        cpu_s = sum(process.cpu_times()[:2]) - cpu_before
    return Storm(bytes_each, cpu_s / _ROUNDS, took_s / _ROUNDS)


async def _read(reader: asyncio.StreamReader, until: bytes) -> None:
    await reader.readuntil(until)


def _memory(console: redis.Redis) -> int:
    info: dict[str, Any] = console.info("memory")  # type: ignore[assignment]
    return int(info["used_memory"])


async def simulate_change(shards: int, processes: int) -> tuple[int, int, int, float]:
    """One shard is added: epochs, slots, bytes of the largest document, seconds of simulation."""
    store = open_store(f"memory://capacity-{shards}")
    first = initial_topology([_shard(number) for number in range(shards)], cluster="0" * 16)
    store.write(first, expected_epoch=None)
    cluster = MemoryCluster()
    for number in range(processes):
        cluster.add(MemoryProcess(f"process-{number}", f"host-{number % 100}", number))
    decisions = Decisions(store, _OPERATOR)
    made = plan(first, [*first.shards, _shard(shards)], "one more")
    began = time.perf_counter()
    await decisions.begin(made, step=256)
    largest = 0
    async for _ in Coordinator(decisions, cluster).drive():
        now = store.read()
        assert now is not None
        largest = max(largest, len(encode(now)))
    final = store.read()
    assert final is not None
    assert {one.epoch for one in cluster.running.values()} == {final.epoch}
    return final.epoch - first.epoch, len(made.moves), largest, time.perf_counter() - began


def _shard(number: int) -> Shard:
    url = f"rediss://layer:{number:032x}@redis-{number:04}.eu-west-1.example.com:6379/0"
    return Shard(f"shard-{number:04}", url)


@click.command()
@click.option("--shards", default=64, show_default=True)
@click.option("--processes", default=1000, show_default=True)
@click.option("--only-idle", is_flag=True, help="Measure what idle layers cost, and end.")
def main(shards: int, processes: int, only_idle: bool) -> None:
    """Measure, simulate, multiply."""
    idle = asyncio.run(measure_idle())
    if only_idle:
        _show_idle(idle)
        return
    process = asyncio.run(measure_process())
    storm = asyncio.run(measure_storm(processes))
    epochs, slots, document, took_s = asyncio.run(simulate_change(shards, processes))
    table = Table(title=f"{shards} shards, {processes:,} processes")
    for title in ("", "figure", "how it was found"):
        table.add_column(title)
    rows = [
        ("connections of one process to a shard", f"{process.connections:.1f}", "measured"),
        ("connections at a shard", f"{process.connections * processes:,.0f}", "x processes"),
        ("connections of a process", f"{process.connections * shards:,.0f}", "x shards"),
        ("all connections", f"{process.connections * shards * processes:,.0f}", "x both"),
        ("a shard's memory per connection", f"{storm.connection_bytes:,.0f} bytes", "measured"),
        (
            "a shard's memory for connections",
            f"{storm.connection_bytes * process.connections * processes / 1e6:,.1f} MB",
            "x connections at a shard",
        ),
        ("memory of a process per shard", f"{process.bytes_per_shard / 1e3:,.0f} kB", "measured"),
        (
            "memory of a process for its shards",
            f"{process.bytes_per_shard * shards / 1e6:,.1f} MB",
            "x shards",
        ),
        ("commands of an idle process at a shard", f"{idle.commands_per_s:.2f}/s", "measured"),
        (
            "commands at an idle shard",
            f"{idle.commands_per_s * processes:,.0f}/s",
            "x processes",
        ),
        ("commands of an idle process", f"{idle.commands_per_s * shards:,.0f}/s", "x shards"),
        (
            "an idle process's share of a shard's core",
            f"{idle.shard_cpu_share:.4%}",
            "measured",
        ),
        (
            "all idle processes' share of it",
            f"{idle.shard_cpu_share * processes:.0%}",
            "x processes",
        ),
        (
            "an idle process's own share of a core, per shard",
            f"{idle.process_cpu_share:.4%}",
            "measured",
        ),
        (
            f"one announcement to {processes:,}, shard CPU",
            f"{storm.shard_cpu_s * 1e3:.1f} ms",
            "measured",
        ),
        ("the same, until the last has it", f"{storm.last_after_s * 1e3:.1f} ms", "measured, here"),
        ("ZooKeeper sessions", f"{processes + 3:,}", "one a process, monitors, operator"),
        ("ZooKeeper watches", f"{processes + 3:,}", "one a session, on one znode"),
        ("adding a shard: slots", f"{slots}", "simulated"),
        ("adding a shard: epochs", f"{epochs}", "simulated"),
        ("the largest document", f"{document:,} bytes", "simulated"),
        (
            "ZooKeeper sends for one epoch",
            f"{document * processes / 1e6:,.1f} MB",
            "document x processes",
        ),
        (
            "announcements for one epoch, all shards",
            f"{shards * processes:,}",
            "shards x processes",
        ),
        ("the change, without network", f"{took_s:.2f} s", "simulated"),
    ]
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def _show_idle(idle: Idle) -> None:
    table = Table(title=f"{_IDLE_LAYERS} idle layers on {_IDLE_SHARDS} shards: one, at one shard")
    for title in ("", "figure"):
        table.add_column(title)
    table.add_row("shard's core", f"{idle.shard_cpu_share:.4%}")
    table.add_row("process's core", f"{idle.process_cpu_share:.4%}")
    table.add_row("commands", f"{idle.commands_per_s:.2f}/s")
    for name, per_s in sorted(idle.commands.items(), key=lambda one: -one[1]):
        if per_s > 0.005:
            table.add_row(name, f"{per_s:.2f}/s")
    Console().print(table)


if __name__ == "__main__":
    main()
