"""Histories survive their file, whole or cut short."""

from __future__ import annotations

import json

import pytest

from chaos.history import (
    Audit,
    Counted,
    Delivery,
    Failure,
    Header,
    Life,
    MalformedHistory,
    Opened,
    Outcome,
    Verb,
    Window,
    event_of,
    history_of,
    parse,
)

HEADER = Header("direct/calm", 1, 0.0, 5.0, 10.0, 1.0, 60.0, ("P1",), versions={"python": "3"})
INVOKED = {
    "e": "invoke",
    "id": "p0.0:1",
    "process": "p0.0",
    "task": "w",
    "verb": "send",
    "name": "c",
    "shard": "shard-0",
    "invoked_s": 1.0,
    "number": 7,
    "member": "",
}
COMPLETED = {"e": "complete", "id": "p0.0:1", "completed_s": 1.5, "outcome": "no", "error": "X"}


def line(event: object) -> str:
    return json.dumps(event) + "\n"


def test_every_kind_of_event_survives_its_file() -> None:
    """Tuples, numbers and texts come back as they were."""
    values = (
        HEADER,
        Delivery("p1.0", "c", "p0.0/w/7", 2.0),
        Window("latency", 1.0, 2.0, ("shard-0",), (), 3),
        Opened("p1.0", "c", "shard-0", 0.5),
        Life("p1.0", 0.0, 9.0, killed=True),
        Counted("p1.0", "full", 2, 3.0),
        Audit("shard-0", 4, 0, 1),
        Failure("p1.0", "read", "E()", 3.0),
    )
    history = history_of(parse([line(event_of(value)) for value in values]))
    assert (
        history.header,
        *history.deliveries,
        *history.windows,
        *history.opened,
        *history.lives,
        *history.counted,
        *history.audits,
        *history.failures,
    ) == values


def test_an_operation_is_put_together_from_two_events() -> None:
    """Without the second its outcome is unknown."""
    begun = history_of([event_of(HEADER), INVOKED]).operations["p0.0:1"]
    assert (begun.verb, begun.outcome, begun.completed_s) == (Verb.SEND, Outcome.UNKNOWN, None)
    done = history_of([event_of(HEADER), INVOKED, COMPLETED]).operations["p0.0:1"]
    assert (done.outcome, done.completed_s, done.number) == (Outcome.NO, 1.5, 7)


def test_half_a_line_at_the_end_is_left_out() -> None:
    """A process that was killed amid a write leaves one."""
    assert len(parse([line(INVOKED), line(COMPLETED)[:20]])) == 1


@pytest.mark.parametrize("text", ["no json\n", "[]\n", "{}\n"])
def test_what_is_no_event_is_refused(text: str) -> None:
    """The error names the line."""
    with pytest.raises(MalformedHistory, match="line 2"):
        parse([line(INVOKED), text])


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event_of(HEADER)] * 2,
        [event_of(HEADER), {"e": "delivery"}],
        [event_of(HEADER), COMPLETED],
    ],
    ids=["no-header", "two-headers", "missing-field", "never-begun"],
)
def test_an_incomplete_history_is_refused(events: list[dict[str, object]]) -> None:
    """Nothing is judged that is not all there."""
    with pytest.raises(MalformedHistory):
        history_of(events)
