"""Trails are kept per task and per scope."""

import asyncio
from collections.abc import Hashable

from asgiref.sync import async_to_sync

from cluster_layer.lanes import INBOX, Lane
from cluster_layer.marks import Trail
from cluster_layer.trails import MAX_SCOPES, recall, remember

LANE = Lane("one", INBOX)


def recalled(scope: Hashable) -> Trail:
    """The running task's trail, of which nothing is on its way."""
    past = recall(scope)
    assert isinstance(past, Trail)
    return past


def trail(position: int) -> Trail:
    return Trail().after(LANE, "life", position, now=0.0)


async def test_scopes_do_not_mix() -> None:
    """What was written in one scope is not known in another."""
    remember("one", trail(1))
    remember("two", trail(2))
    remember("one", trail(3))
    positions = [
        recalled(scope).marks(Lane("other", "group"), 0.0, 1.0) for scope in ("one", "two")
    ]
    assert [marks and marks["one"].inbox for marks in positions] == [3, 2]
    assert len(recalled("three")) == 0


async def test_tasks_inherit_and_keep_to_themselves() -> None:
    """A child task begins with its parent's trail and does not change it."""
    parents = trail(1)
    remember("scope", parents)

    async def child() -> Trail:
        inherited = recalled("scope")
        remember("scope", trail(2))
        return inherited

    assert await asyncio.create_task(child()) is parents
    assert recalled("scope") is parents


def test_a_trail_outlives_the_loop_of_one_call() -> None:
    """The writes of sync code, one async_to_sync after another, are one task's."""

    async def write() -> None:
        remember("sync", trail(7))

    async_to_sync(write)()
    assert len(recalled("sync")) == 1


async def test_the_number_of_scopes_is_bounded() -> None:
    """The scope that was written to longest ago is forgotten first."""
    for number in range(MAX_SCOPES + 1):
        remember(number, trail(number + 1))
        remember(0, trail(1))
    assert len(recalled(0)) == 1
    assert len(recalled(1)) == 0
    assert all(len(recalled(number)) for number in range(2, MAX_SCOPES + 1))
