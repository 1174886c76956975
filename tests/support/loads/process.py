"""The program of one process: ``python -m tests.support.loads.process ORDERS.json``.

It opens its channels, reads, writes from the begin to the stop, reads on until the end, and writes
down what it has seen. Files in a directory that all share are the signals.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_layer import ClusterChannelLayer
from tests.support.loads.flows import Flow, Traffic
from tests.support.loads.records import Read, Record, Written
from topology.errors import ClusterError

_LOOK_S = 0.02
_COUNT_S = 0.2
_LAG_S = 1.0  # further behind its schedule a writer begins a new one


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is told at its start."""

    name: str
    directory: str
    config: dict[str, Any]
    keys: dict[str, str | None]  # of the channels to open -> the group that each one joins
    normal: list[str]  # channels to read

    @property
    def path(self) -> Path:
        return Path(self.directory)

    def file(self, kind: str) -> Path:
        return self.path / f"{self.name}.{kind}"


def publish(path: Path, value: Any) -> None:
    """Write a file that is there as a whole or not at all."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(json.dumps(value), encoding="utf-8")
    fresh.replace(path)


class Life:
    """All that one process does."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._record = Record()
        self._layer = ClusterChannelLayer(**orders.config)
        self._writing = True

    async def live(self) -> None:
        await self._layer.open()
        channels = {key: await self._layer.new_channel(key) for key in self._orders.keys}
        for key, group in self._orders.keys.items():
            if group is not None:
                await self._layer.group_add(group, channels[key])
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(self._read(name))
                for name in (*channels.values(), *self._orders.normal)
            ]
            readers.append(tasks.create_task(self._count()))
            publish(self._orders.file("ready"), channels)
            traffic = Traffic.from_json(await self._signal("begin"))
            writers = [
                tasks.create_task(self._write(index, flow, set(traffic.members)))
                for index, flow in enumerate(traffic.flows)
                if flow.process == self._orders.name
            ]
            await self._signal("stop")
            self._writing = False
            await asyncio.gather(*writers)
            counts = {index: len(one.due_s) for index, one in self._record.written.items()}
            publish(self._orders.file("written"), counts)
            await self._signal("end")
            for reader in readers:
                reader.cancel()
        self._record.stats = self._layer.stats()
        self._record.save(self._orders.file("record"))
        await self._layer.close()

    async def _signal(self, name: str) -> Any:
        path = self._orders.path / name
        while not path.exists():
            await asyncio.sleep(_LOOK_S)
        return json.loads(path.read_text("utf-8"))

    async def _count(self) -> None:
        """Tell how much has come, and what the layer says of itself."""
        while True:
            now = {"arrived": len(self._record.arrivals.at_s), "stats": self._layer.stats()}
            publish(self._orders.file("now"), now)
            await asyncio.sleep(_COUNT_S)

    async def _read(self, channel: str) -> None:
        arrivals, reads = self._record.arrivals, self._record.read
        while True:
            message = await self._layer.receive(channel)
            now = time.monotonic()
            try:
                flow, number, due_s = message["flow"], message["n"], message["due_s"]
            except KeyError:
                self._record.strangers.append(f"{channel}: {message!r:.80}")
                continue
            read = reads.get((channel, flow))
            if read is None:
                read = reads[channel, flow] = Read()
            read.note(number, now)
            arrivals.flow.append(flow)
            arrivals.number.append(number)
            arrivals.at_s.append(now)
            arrivals.after_s.append(now - due_s)

    async def _write(self, index: int, flow: Flow, groups: set[str]) -> None:
        written = self._record.written[index] = Written()
        send, group_send = self._layer.send, self._layer.group_send
        due_s = time.monotonic() + random.uniform(0, flow.every_s)
        number = 0
        while self._writing:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            target = flow.target_of(number)
            written.due_s.append(due_s)
            message = {"type": "load", "flow": index, "n": number, "due_s": due_s}
            began_s = time.monotonic()
            try:
                await (group_send if target in groups else send)(target, message)
            except ClusterError as error:
                failed = written.refused if error.definite else written.unknown
                failed[number] = type(error).__name__
            now = time.monotonic()
            written.took_s.append(now - began_s)
            due_s = max(due_s + flow.every_s, now - _LAG_S)
            number += 1


def main() -> None:
    orders = Orders(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    asyncio.run(Life(orders).live())


if __name__ == "__main__":
    main()
