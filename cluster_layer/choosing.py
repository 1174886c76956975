"""The next message of several channels, so that a busy one does not keep the others waiting.

Each channel gets its turn: whoever had one longest ago is asked first, and a turn is over whether
or not there was a message. A normal channel is asked for at its shard, since its messages stay
there until somebody wants them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final, TypeAlias

from cluster_layer.buffers import Parcel
from cluster_layer.names import inbox_name, is_process_specific
from cluster_layer.receivers import Receivers
from topology.errors import ClusterError

LOOK_S: Final = 1.0  # how long one shard may keep the other channels waiting
MAX_TURNS: Final = 10_000  # channels whose turns are remembered

Received: TypeAlias = tuple[str, Parcel]


class Turns:
    """Which channel had its turn longest ago."""

    def __init__(self) -> None:
        self._taken: dict[str, None] = {}  # the latest comes last

    def order(self, channels: Sequence[str]) -> list[str]:
        """These channels, who had its turn longest ago first; who never had one before them."""
        if len(channels) == 1:
            return list(channels)
        wanted = set(channels)
        known = [name for name in self._taken if name in wanted]
        return [name for name in channels if name not in self._taken] + known

    def take(self, channel: str) -> None:
        """It is this channel's turn."""
        self._taken.pop(channel, None)
        self._taken[channel] = None
        if len(self._taken) > MAX_TURNS:
            del self._taken[next(iter(self._taken))]


async def next_of(receivers: Receivers, channels: Sequence[str], turns: Turns) -> Received:
    """The next message of any of these channels; cancelling loses nothing. NodeClosed."""
    if len(channels) == 1:
        return await receivers.receive(channels[0])
    found = await _first_found(receivers, channels, turns)
    return found or await _first_to_come(receivers, channels, turns)


async def look_at(
    receivers: Receivers, channels: Sequence[str], turns: Turns, timeout_s: float
) -> Received | None:
    """A message of any of these channels that is there now; None: there is none.

    What cannot be asked within `timeout_s` counts as empty. NodeClosed.
    """
    specific = [name for name in channels if is_process_specific(name)]
    try:
        async with asyncio.timeout(timeout_s):
            found = await _first_found(receivers, channels, turns)
            if found is None and specific:
                for inbox in dict.fromkeys(map(inbox_name, specific)):
                    with contextlib.suppress(ClusterError):
                        await receivers.read_to_end(inbox)
                found = await _first_found(receivers, specific, turns)
            return found
    except TimeoutError:
        return None


async def _first_found(
    receivers: Receivers, channels: Sequence[str], turns: Turns
) -> Received | None:
    for name in turns.order(channels):
        turns.take(name)
        found = _here(receivers, name)
        if found is None and not is_process_specific(name):
            found = await _on_the_shards(receivers, name)
        if found is not None:
            return found
    return None


def _here(receivers: Receivers, name: str) -> Received | None:
    """A message that has arrived in this process."""
    now = time.monotonic()
    if name.endswith("!"):
        receivers.watch_inbox(name)
        shared = receivers.mailboxes.take_shared(name, now)
        return None if shared is None else (shared[0].name, shared[1])
    box = receivers.watch(name)
    parcel = receivers.take(name)
    if parcel is not None:
        return name, parcel
    if box.abandoned_at is not None:
        box.abandoned_at = now  # somebody looks after it
    return None


async def _on_the_shards(receivers: Receivers, name: str) -> Received | None:
    """A message that waits at the home of a normal channel."""
    receiving = asyncio.create_task(receivers.receive(name))

    def asked() -> None:
        box = receivers.mailboxes.find(name)
        if box is None or not box.parcels:
            receiving.cancel()

    try:
        await asyncio.sleep(0)  # it has to wait there before anybody asks for it
        if not receivers.when_asked(name, asked):
            asked()
        await asyncio.wait({receiving}, timeout=LOOK_S)
        receiving.cancel()
        await asyncio.wait({receiving})
    except BaseException:
        _give_up(receivers, receiving)
        raise
    return None if receiving.cancelled() else receiving.result()


async def _first_to_come(receivers: Receivers, channels: Sequence[str], turns: Turns) -> Received:
    """Wait at all of them; what comes second goes back to where it was."""
    tasks = {name: asyncio.create_task(receivers.receive(name)) for name in turns.order(channels)}
    try:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        first = next(name for name, task in tasks.items() if task.done())
        turns.take(first)
        return tasks.pop(first).result()
    finally:
        for task in reversed(tasks.values()):
            _give_up(receivers, task)


def _give_up(receivers: Receivers, receiving: asyncio.Task[Received]) -> None:
    """Nobody waits for it any more; a message that it has got, or gets yet, is put back."""
    receiving.cancel()
    receiving.add_done_callback(lambda task: _put_back(receivers, task))


def _put_back(receivers: Receivers, receiving: asyncio.Task[Received]) -> None:
    if not receiving.cancelled() and receiving.exception() is None:
        receivers.put_back(*receiving.result())
