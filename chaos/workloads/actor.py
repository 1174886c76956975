"""One process's part in a workload: it does operations on a layer and writes down what happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from chaos.history import (
    CANCELLED,
    REPORTED,
    WRITES,
    Counted,
    Failure,
    Opened,
    Operation,
    Outcome,
    Verb,
)
from chaos.layers import Layer
from chaos.workloads.recorder import Recorder
from topology.errors import ClusterError

_ATTEMPTS = 100  # to get an inbox on some shard
_AGAIN_S = 0.1  # after an error of receive(), which there should not be
_LOOK_S = 0.1  # between two looks at what other processes have published


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
        layer: Layer,
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
        #: Makes the rest of a message by its number; None: there is none.
        self.ballast: Callable[[int], bytes] | None = None
        #: Whether a call that returns has happened; else `learn_outcomes` finds that out.
        self.confirmed = True
        self._unlearnt: list[tuple[str, float]] = []  # id, when its call returned
        self._failed_before = 0  # of what had been sent when outcomes were last asked for
        self._writes = True
        self._ids = itertools.count()
        self._ids_lock = threading.Lock()
        self._channels: list[str] = []
        self._counted: Counter[str] = Counter()

    def chance(self, task: str) -> Random:
        """A source of chance for one task: the same in every run with the same seed."""
        return Random(f"{self._seed}/{self.process}/{task}")

    @property
    def writing(self) -> bool:
        return self._writes and time.monotonic() < self.times.quiet_s

    def stop_writing(self) -> None:
        """Earlier than planned; channels are not offered to others any more."""
        self._writes = False
        self.book.publish(self.process, [])

    def addresses(self) -> list[str]:
        """Process-specific channels of all processes; never empty once we have opened one."""
        return self.book.channels(time.monotonic()) or self._channels

    async def open_channel(self) -> str:
        """A new channel of this process, announced to the others; one shard after the other."""
        channel = await self.layer.new_channel("specific")
        shard = await self.layer.locate(channel)
        shards = self.layer.shards()
        wanted = shards[len(self._channels) % len(shards)]
        for attempt in range(_ATTEMPTS):  # a shard that is drained has no inbox
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

    async def receive(self, channel: str) -> None:
        """One message, however long it takes; an error is written down, and tried again."""
        while True:
            try:
                self.received(channel, await self.layer.receive(channel))
            except Exception as error:  # noqa: BLE001 - that there is none is what is checked
                self.failed(f"receive({channel})", error)
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    def received(self, channel: str, message: dict[str, Any]) -> None:
        """Write a message down that has been received."""
        self._recorder.delivered(self.process, channel, message["id"])
        if "ballast" in message and crc32(message["ballast"]) != message["checksum"]:
            self.failed(f"the content of {message['id']}", ValueError("it is not what was sent"))

    def failed(self, where: str, error: BaseException) -> None:
        self._recorder.record(Failure(self.process, where, repr(error), time.monotonic()))

    async def read(self, channel: str) -> None:
        """Receive until cancelled."""
        while True:
            await self.receive(channel)

    async def learn_outcomes(self) -> None:
        """Find out what became of all writes until now.

        If one has failed since the last ones were asked for, all of these are unknown.
        """
        asked, self._unlearnt = self._unlearnt, []
        failed_before, self._failed_before = self._failed_before, self.layer.unconfirmed()
        await self.layer.wait_for_confirms()
        outcome, error = Outcome.OK, ""
        if self.layer.unconfirmed() != failed_before:
            outcome, error = Outcome.UNKNOWN, REPORTED
        for operation_id, returned_s in asked:
            self._recorder.completed(operation_id, outcome, error, returned_s)

    def count_losses(self) -> None:
        """Record what the layer has counted as lost since the last call."""
        for reason, count in self.layer.lost().items():
            if (more := count - self._counted[reason]) > 0:
                self._counted[reason] = count
                self._recorder.record(Counted(self.process, reason, more, time.monotonic()))

    def record(self, value: Any) -> None:
        """Write an event down that is no operation."""
        self._recorder.record(value)

    async def _write(
        self,
        verb: Verb,
        call: Callable[[str, dict[str, Any]], Awaitable[None]],
        task: str,
        name: str,
        number: int,
        patience_s: float | None,
    ) -> Outcome:
        message: dict[str, Any] = {
            "type": "chaos.message",
            "id": f"{self.process}/{task}/{number}",
        }
        if self.ballast is not None:
            message["ballast"] = ballast = self.ballast(number)
            message["checksum"] = crc32(ballast)
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
        self._recorder.invoked(operation)
        if patience_s is None:
            outcome, error = await self._outcome_of(doing, verb, task)
        else:
            outcome, error = await self._hurried_outcome_of(doing, verb, task, patience_s)
        if outcome is Outcome.OK and verb in WRITES and not self.confirmed:
            self._unlearnt.append((operation.id, time.monotonic()))
        else:
            self._recorder.completed(operation.id, outcome, error)
        return outcome

    async def _hurried_outcome_of(
        self, doing: Awaitable[None], verb: Verb, task: str, patience_s: float
    ) -> tuple[Outcome, str]:
        try:
            async with asyncio.timeout(patience_s):
                return await self._outcome_of(doing, verb, task)
        except TimeoutError:
            return Outcome.UNKNOWN, CANCELLED

    async def _outcome_of(
        self, doing: Awaitable[None], verb: Verb, task: str
    ) -> tuple[Outcome, str]:
        try:
            await doing
        except asyncio.CancelledError:
            raise
        except ClusterError as error:
            outcome = Outcome.NO if error.definite else Outcome.UNKNOWN
            return outcome, type(error).__name__
        except Exception as error:  # noqa: BLE001 - that there is none is what is checked
            self.failed(f"{verb} by {task}", error)
            return Outcome.UNKNOWN, type(error).__name__
        return Outcome.OK, ""
