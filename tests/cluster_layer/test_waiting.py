"""Receivers that sleep: to a task, a sleeper is as good as a future."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from cluster_layer.waiting import Sleeper, Wakeups


class Place:
    """Where receivers sleep; knows who left it, and whether he had been woken."""

    def __init__(self) -> None:
        self.wakeups = Wakeups(asyncio.get_running_loop())
        self.asleep: list[Sleeper[Place]] = []
        self.left: list[bool] = []

    def sleep(self) -> Sleeper[Place]:
        sleeper = Sleeper(self.wakeups, self, Place._left)
        self.asleep.append(sleeper)
        return sleeper

    def wake(self) -> None:
        self.asleep.pop(0).wake()

    def _left(self, sleeper: Sleeper[Place], woken: bool) -> None:
        if not woken:
            self.asleep.remove(sleeper)
        self.left.append(woken)


async def asleep(place: Place, count: int = 1) -> list[asyncio.Task[str]]:
    """So many more tasks that sleep at a place, and tell how it ended."""

    async def receiver() -> str:
        try:
            await place.sleep()
        except asyncio.CancelledError as error:
            return f"cancelled: {error}"
        return "woken"

    count += len(place.asleep)
    tasks = [asyncio.create_task(receiver()) for _ in range(count - len(place.asleep))]
    while len(place.asleep) < count:
        await asyncio.sleep(0)
    return tasks


async def test_all_who_are_woken_go_on_in_one_callback() -> None:
    """However many they are, the loop is asked once; in the order in which they were woken."""
    place = Place()
    order: list[int] = []

    async def receiver(number: int) -> None:
        await place.sleep()
        order.append(number)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(receiver(number))
        await asyncio.sleep(0)
        for _ in range(100):
            place.wake()
        await asyncio.sleep(0)
        assert order == list(range(100))


async def test_who_is_woken_by_one_who_goes_on_has_its_turn_in_the_next_step() -> None:
    """So receivers that wake each other for ever do not keep the loop from anything else."""
    place = Place()
    turns = 0

    async def receiver() -> None:
        nonlocal turns
        while True:
            await place.sleep()
            turns += 1
            place.wake()

    tasks = [asyncio.create_task(receiver()) for _ in range(2)]
    await asyncio.sleep(0)
    place.wake()
    for _ in range(10):
        before = turns
        await asyncio.sleep(0)
        assert turns - before <= 1
    assert turns >= 5
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_receiver_can_be_cancelled_in_its_sleep() -> None:
    """Its place knows at once, and the message of the cancellation arrives."""
    place = Place()
    (task,) = await asleep(place)
    task.cancel("closing time")
    assert place.left == [False]
    assert await task == "cancelled: closing time"


async def test_a_receiver_that_was_woken_can_still_be_cancelled() -> None:
    """Then its place knows that the wake-up reached nobody."""
    place = Place()
    tasks = await asleep(place, 2)
    place.wake()
    tasks[0].cancel()
    assert place.left == [True]
    place.wake()
    assert await asyncio.gather(*tasks) == ["cancelled: ", "woken"]


async def test_cancelling_twice_counts_once() -> None:
    """The place is not told again, and the task ends by the first."""
    place = Place()
    (task,) = await asleep(place)
    task.cancel("first")
    task.cancel("second")
    assert place.left == [False]
    assert (await task).startswith("cancelled")


async def test_a_task_that_is_cancelled_before_its_first_step_never_sleeps() -> None:
    """As with a future."""
    place = Place()

    async def receiver() -> None:
        await place.sleep()

    task = asyncio.create_task(receiver())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert place.asleep == []


async def test_a_cancellation_that_comes_before_the_sleep_ends_it() -> None:
    """A task may be cancelled by what it calls itself."""
    place = Place()

    async def receiver() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await place.sleep()

    task = asyncio.create_task(receiver())
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert place.left == [False]


async def test_a_sleeper_that_was_woken_before_it_is_awaited_does_not_sleep() -> None:
    """The wake-up is not lost."""
    place = Place()
    sleeper = place.sleep()
    place.wake()
    async with asyncio.timeout(20):
        await sleeper


async def test_timeouts_end_a_sleep() -> None:
    """wait_for and timeout work as with a future, and the task may sleep again."""
    place = Place()

    async def nap() -> None:
        await place.sleep()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(nap(), 0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await place.sleep()
    assert place.left == [False, False]
    assert place.asleep == []


async def test_a_context_variable_is_that_of_the_task() -> None:
    """Not that of whoever woke it."""
    import contextvars

    variable = contextvars.ContextVar("variable", default="nobody")
    place = Place()

    async def receiver(name: str) -> str:
        variable.set(name)
        await place.sleep()
        return variable.get()

    tasks = [asyncio.create_task(receiver(name)) for name in ("one", "other")]
    await asyncio.sleep(0)
    variable.set("waker")
    place.wake()
    place.wake()
    assert await asyncio.gather(*tasks) == ["one", "other"]


def test_others_go_on_when_one_ends_the_program() -> None:
    """KeyboardInterrupt and SystemExit leave the loop through the callback, with others in it."""
    loop = asyncio.new_event_loop()

    async def ends(place: Place) -> None:
        await place.sleep()
        raise SystemExit(3)

    async def begin() -> list[asyncio.Task[Any]]:
        place = Place()
        ending = asyncio.create_task(ends(place))
        await asyncio.sleep(0)
        others = await asleep(place, 3)
        while place.asleep:
            place.wake()
        return [ending, *others]

    beginning = loop.create_task(begin())
    with pytest.raises(SystemExit):
        loop.run_forever()
    ending, *others = beginning.result()
    assert isinstance(ending.exception(), SystemExit)
    assert loop.run_until_complete(asyncio.gather(*others)) == ["woken"] * 3
    loop.close()


def on_uvloop(main: Callable[[], Any]) -> Any:
    return uvloop.run(main())


def in_debug_mode(main: Callable[[], Any]) -> Any:
    return asyncio.run(main(), debug=True)


@pytest.mark.parametrize("run", [on_uvloop, in_debug_mode])
def test_other_loops_take_a_sleeper_for_a_future(run: Callable[..., Any]) -> None:
    """uvloop, and asyncio with its checks."""

    async def main() -> tuple[list[str], list[bool]]:
        place = Place()
        tasks = await asleep(place, 3)
        place.wake()
        tasks[1].cancel()
        place.wake()
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks), place.left

    assert run(main) == (["woken", "cancelled: ", "woken"], [False])
