"""One process's part in a workload: it does operations on a layer and writes down what happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from chaos.history import (
    CANCELLED,
    Delivery,
    Event,
    Failure,
    Opened,
    Operation,
    Outcome,
    Verb,
    event_of,
)
from cluster_layer import ClusterChannelLayer
from topology.errors import ClusterError

_LOOK_S = 0.1  # between two looks at what other processes have published


class Recorder:
    """Appends events to a file, one write each, so that a killed process leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def record(self, value: Any) -> None:
        self.record_event(event_of(value))

    def record_event(self, event: Event) -> None:
        os.write(self._descriptor, json.dumps(event).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


class AddressBook:
    """The channels that every process reads, as files in a directory that all share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_s = float("-inf")
        self._channels: list[str] = []

    def publish(self, process: str, channels: Sequence[str]) -> None:
        """Replaces what an earlier life of the process published."""
        name = process.partition(".")[0]
        fresh = self._directory / f"{name}.new"
        fresh.write_text(json.dumps(list(channels)), encoding="utf-8")
        fresh.replace(self._directory / f"{name}.channels")

    def channels(self, now: float) -> list[str]:
        if now - self._read_s > _LOOK_S:
            self._read_s = now
            files = sorted(self._directory.glob("*.channels"))
            self._channels = [
                channel for file in files for channel in json.loads(file.read_text("utf-8"))
            ]
        return self._channels


@dataclass(frozen=True, slots=True)
class Times:
    """When a run begins, when writing ends and when reading does; monotonic seconds."""

    began_s: float
    quiet_s: float
    ended_s: float


class Actor:
    """What the tasks of a workload need; safe to use from several threads."""

    def __init__(
        self,
        process: str,
        layer: ClusterChannelLayer,
        recorder: Recorder,
        book: AddressBook,
        times: Times,
        seed: str,
    ) -> None:
        self.process = process
        self.layer = layer
        self.times = times
        self.book = book
        self._recorder = recorder
        self._seed = seed
        self._ids = itertools.count()
        self._ids_lock = threading.Lock()
        self._channels: list[str] = []
        self._counted: Counter[str] = Counter()

    def chance(self, task: str) -> Random:
        """A source of chance for one task: the same in every run with the same seed."""
        return Random(f"{self._seed}/{self.process}/{task}")

    @property
    def writing(self) -> bool:
        return time.monotonic() < self.times.quiet_s

    def addresses(self) -> list[str]:
        """Process-specific channels of all processes."""
        return self.book.channels(time.monotonic())

    async def open_channel(self) -> str:
        """A new channel of this process, announced to the others; one shard after the other."""
        channel = await self.layer.new_channel()
        shard = await self.layer.locate(channel)
        shards = sorted(self.layer.stats()["shards"])
        wanted = shards[len(self._channels) % len(shards)]
        for attempt in itertools.count():
            if shard == wanted:
                break
            channel = await self.layer.new_channel(f"chaos{attempt}")
            shard = await self.layer.locate(channel)
        self._recorder.record(Opened(self.process, channel, shard, time.monotonic()))
        self._channels.append(channel)
        self.book.publish(self.process, self._channels)
        return channel

    async def send(
        self, task: str, channel: str, number: int, patience_s: float | None = None
    ) -> Outcome:
        """A call that takes longer than `patience_s` is cancelled: its outcome is unknown."""
        call = self.layer.send
        return await self._write(Verb.SEND, call, task, channel, number, patience_s)

    async def group_send(
        self, task: str, group: str, number: int, patience_s: float | None = None
    ) -> Outcome:
        call = self.layer.group_send
        return await self._write(Verb.GROUP_SEND, call, task, group, number, patience_s)

    async def join(self, task: str, group: str, channel: str) -> Outcome:
        doing = self.layer.group_add(group, channel)
        return await self._perform(Verb.GROUP_ADD, doing, task, group, member=channel)

    async def leave(self, task: str, group: str, channel: str) -> Outcome:
        doing = self.layer.group_discard(group, channel)
        return await self._perform(Verb.GROUP_DISCARD, doing, task, group, member=channel)

    def received(self, channel: str, message: dict[str, Any]) -> None:
        delivery = Delivery(self.process, channel, message["id"], time.monotonic())
        self._recorder.record(delivery)

    def failed(self, where: str, error: BaseException) -> None:
        self._recorder.record(Failure(self.process, where, repr(error), time.monotonic()))

    async def read(self, channel: str) -> None:
        """Receive until cancelled."""
        while True:
            self.received(channel, await self.layer.receive(channel))

    def count_losses(self) -> None:
        """Record what the layer has counted as lost since the last call."""
        lost: dict[str, int] = self.layer.stats()["lost"]
        for reason, count in lost.items():
            if (more := count - self._counted[reason]) > 0:
                self._counted[reason] = count
                self._recorder.record_event(
                    {
                        "e": "counted",
                        "process": self.process,
                        "reason": reason,
                        "count": more,
                        "at_s": time.monotonic(),
                    }
                )

    async def _write(
        self,
        verb: Verb,
        call: Callable[[str, dict[str, Any]], Awaitable[None]],
        task: str,
        name: str,
        number: int,
        patience_s: float | None,
    ) -> Outcome:
        message = {"type": "chaos.message", "id": f"{self.process}/{task}/{number}"}
        return await self._perform(
            verb, call(name, message), task, name, number=number, patience_s=patience_s
        )

    async def _perform(
        self,
        verb: Verb,
        doing: Awaitable[None],
        task: str,
        name: str,
        *,
        number: int = 0,
        member: str = "",
        patience_s: float | None = None,
    ) -> Outcome:
        shard = await self.layer.locate(name)
        with self._ids_lock:
            operation_id = f"{self.process}:{next(self._ids)}"
        operation = Operation(
            id=operation_id,
            process=self.process,
            task=task,
            verb=verb,
            name=name,
            shard=shard,
            invoked_s=time.monotonic(),
            number=number,
            member=member,
        )
        self._recorder.record_event(_invocation(operation))
        try:
            async with asyncio.timeout(patience_s):
                outcome, error = await self._outcome_of(doing, f"{verb} by {task}")
        except TimeoutError:
            outcome, error = Outcome.UNKNOWN, CANCELLED
        self._recorder.record_event(
            {
                "e": "complete",
                "id": operation.id,
                "completed_s": time.monotonic(),
                "outcome": outcome,
                "error": error,
            }
        )
        return outcome

    async def _outcome_of(self, doing: Awaitable[None], where: str) -> tuple[Outcome, str]:
        try:
            await doing
        except asyncio.CancelledError:
            raise
        except ClusterError as error:
            outcome = Outcome.NO if error.definite else Outcome.UNKNOWN
            return outcome, type(error).__name__
        except Exception as error:  # noqa: BLE001 - that there is none is what is checked
            self.failed(where, error)
            return Outcome.UNKNOWN, type(error).__name__
        return Outcome.OK, ""


def _invocation(operation: Operation) -> Event:
    return {
        "e": "invoke",
        "id": operation.id,
        "process": operation.process,
        "task": operation.task,
        "verb": operation.verb,
        "name": operation.name,
        "shard": operation.shard,
        "invoked_s": operation.invoked_s,
        "number": operation.number,
        "member": operation.member,
    }
