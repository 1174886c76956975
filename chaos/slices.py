"""The smallest part of a history that still shows a violation; pure.

Found by leaving out whatever can be left out (delta debugging, Zeller and Hildebrandt 2002): what
remains is 1-minimal, which means that without any one of its events the violation is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from chaos.history import Event, Header, History, Operation, Window, event_of, events_of

Checker = Callable[[History], Sequence[str]]

MAX_CHANGES: Final = 8  # of memberships
MAX_EVENTS: Final = 50
MAX_WORK: Final = 5_000_000  # events looked at; after that it is as small as it is

_NAMES: Final = re.compile(r"[A-Za-z0-9._!/:-]+")
_PARTS: Final = (
    "deliveries", "windows", "opened", "lives", "counted", "audits", "failures", "stalls",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """Events that show a violation, in order of time.

    For whoever looks for the cause: what else was done to the same names lately, and the faults
    that were near.
    """

    invariant: str
    violation: str
    events: tuple[Any, ...]
    context: tuple[Operation, ...]
    meanwhile: tuple[Window, ...]


def smallest_slice(invariant: str, violation: str, history: History, violations: Checker) -> Slice:
    """`violations(history)` says what a checker finds; the given one is among it."""

    def shows(events: Sequence[Any]) -> bool:
        return violation in violations(_part_of(history, events))

    everything = _events_of(history)
    events = next(
        (chosen for chosen in _guesses(everything, violation) if shows(chosen)), everything
    )
    smallest = tuple(sorted(_minimised(events, shows), key=time_of))[:MAX_EVENTS]
    context = _context(history, smallest)
    return Slice(invariant, violation, smallest, context, _near(history, smallest))


def history_events(found: Slice, header: Header) -> list[Event]:
    """A history of its own, with the slice and the faults that were near."""
    events: list[Event] = [event_of(header)]
    for event in (*found.events, *found.meanwhile):
        events += events_of(event) if isinstance(event, Operation) else [event_of(event)]
    return events


def time_of(event: Any) -> float:
    """When an event happened, or began."""
    for name in ("invoked_s", "at_s", "began_s"):
        if hasattr(event, name):
            return float(getattr(event, name))
    return float("inf")  # audits: at the end


def _events_of(history: History) -> list[Any]:
    values = [value for part in _PARTS for value in getattr(history, part)]
    return [*history.operations.values(), *values]


def _part_of(history: History, events: Iterable[Any]) -> History:
    """The history with only these events, each in its place."""
    kept = {id(event) for event in events}
    parts: dict[str, Any] = {
        part: tuple(value for value in getattr(history, part) if id(value) in kept)
        for part in _PARTS
    }
    operations = {key: one for key, one in history.operations.items() if id(one) in kept}
    return replace(history, operations=operations, **parts)


def _guesses(events: Sequence[Any], violation: str) -> list[list[Any]]:
    """What may be enough, the least first: events that the text names, and their relatives."""
    named = set(_NAMES.findall(violation))
    named |= {name.strip(".,:") for name in named}
    close = [event for event in events if _names_in(event) & named]
    names = named.union(*(_names_in(event) for event in close))
    return [close, [event for event in events if _names_in(event) & names]]


def _names_in(event: Any) -> set[str]:
    names = {
        value
        for field in fields(event)
        if isinstance(value := getattr(event, field.name), str) and value
    }
    if isinstance(event, Operation):
        names.add(event.message)
    # These say who and how, not what it is about.
    for common in ("process", "task", "verb", "outcome", "shard", "error", "reason"):
        names.discard(str(getattr(event, common, "")))
    return names


def _minimised(events: Sequence[Any], shows: Callable[[Sequence[Any]], bool]) -> list[Any]:
    kept = list(events)
    pieces = 2
    work = 0
    while len(kept) > 1 and work < MAX_WORK:
        size = max(1, len(kept) // pieces)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            work += len(rest)
            if shows(rest):
                kept, pieces = rest, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(kept), pieces * 2)
    return kept


def _context(history: History, events: Sequence[Any]) -> tuple[Operation, ...]:
    """The write of each message, and the latest changes of memberships of their channels."""
    names = set().union(*map(_names_in, events)) if events else set()
    ended_s = max((time_of(event) for event in events), default=0.0)
    operations = [one for one in history.operations.values() if one not in events]
    written = [one for one in operations if one.message in names]
    groups = {one.name for one in (*written, *events) if isinstance(one, Operation)}
    changes = [
        one
        for one in operations
        if one.member in names and one.name in groups and one.invoked_s <= ended_s
    ]
    changes.sort(key=time_of)
    return tuple(sorted([*written, *changes[-MAX_CHANGES:]], key=time_of))


def _near(history: History, events: Sequence[Any]) -> tuple[Window, ...]:
    times = [at_s for event in events if (at_s := time_of(event)) != float("inf")]
    if not times:
        return ()
    # Not from the first event: a membership may be much older than what went wrong.
    began_s, ended_s = sorted(times)[len(times) // 2] - 5.0, max(times)
    return tuple(
        window
        for window in history.windows
        if window.began_s <= ended_s and window.ended_s >= began_s and window not in events
    )
