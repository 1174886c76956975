"""Loops that live, loops for one call, and the background loop that serves these."""

import asyncio
import os
import threading

import pytest

from cluster_layer.loops import LIVING_S, Ages, BackgroundLoop, Handover, background_loop, run_on


def test_a_process_has_one_background_loop() -> None:
    """Whichever thread asks first, all are given the same."""
    found: list[BackgroundLoop] = []
    threads = [threading.Thread(target=lambda: found.append(background_loop())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {background_loop()}
    assert background_loop().loop.is_running()


def test_a_function_runs_on_the_background_loop() -> None:
    """Its result and its errors come back to the caller's thread."""
    background = background_loop()
    assert background.call(asyncio.get_running_loop) is background.loop

    def fail() -> None:
        raise LookupError("told")

    with pytest.raises(LookupError, match="told"):
        background.call(fail)


# Python warns of forks beside threads from 3.12 on; prefork servers do it all the same.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_begins_without_a_background_loop() -> None:
    """The child gets one of its own, and the parent keeps its own."""
    before = background_loop()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # no assertions here: the child must end without running any of pytest
        loop = background_loop()
        alive = loop.call(lambda: loop is not before)
        os.write(writer, b"own" if alive else b"same")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"own"
    os.waitpid(child, 0)
    assert background_loop() is before


async def test_a_loop_lives_once_it_has_called_for_a_while() -> None:
    """A loop for a single call never comes to that age."""
    ages, loop = Ages(), asyncio.get_running_loop()
    assert not ages.is_living(loop)
    assert not ages.is_living(loop)
    ages._first_seen[loop] -= LIVING_S
    await asyncio.sleep(0)
    assert ages.is_living(loop)


def test_a_loop_is_not_kept_alive_by_its_age() -> None:
    """Ten thousand loops for one call each leave nothing behind."""
    ages = Ages()

    async def call() -> None:
        ages.is_living(asyncio.get_running_loop())

    for _ in range(5):
        asyncio.run(call())
    assert len(ages._first_seen) <= 1


async def test_work_runs_where_it_is_sent() -> None:
    """The result is awaited here, and the work done there."""
    background = background_loop()

    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert await run_on(background.loop, where()) is background.loop


async def test_cancelling_here_cancels_there() -> None:
    """Nobody goes on with work whose caller is gone."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.ensure_future(run_on(background_loop().loop, work()))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)


def test_what_is_handed_over_has_one_owner() -> None:
    """Before the reader gives up it is the reader's, afterwards still the giver's."""
    wanted: Handover[str] = Handover()
    assert wanted.put("message")
    assert wanted.close() == "message"
    given_up: Handover[str] = Handover()
    assert given_up.close() is None
    assert not given_up.put("message")


def test_a_hand_over_is_decided_once_however_threads_meet() -> None:
    """Never both, never neither."""
    for _ in range(300):
        handover: Handover[str] = Handover()
        outcomes: list[bool] = []
        giver = threading.Thread(target=lambda h=handover, o=outcomes: o.append(h.put("x")))
        giver.start()
        taken = handover.close()
        giver.join()
        assert outcomes == [taken is not None]
