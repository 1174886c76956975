"""What happened in a run, as the processes and the runner wrote it down; all that a checker sees.

A history is a file of JSON lines, one *event* each, with its kind in ``e``. All times are seconds
of one monotonic clock. A *process* is one life of an operating system process (``p1.0``, after its
restart ``p1.1``); a *message* is named by process, task and a number that rises within the task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import wraps
from typing import Any, Final, TypeVar

from topology.errors import ClusterError

Event = Mapping[str, Any]
Answer = TypeVar("Answer")


class MalformedHistory(ClusterError):
    """A history cannot be read."""


class Outcome(StrEnum):
    """What the caller of an operation knows about it."""

    OK = "ok"
    NO = "no"  # definitely not executed
    UNKNOWN = "unknown"


class Verb(StrEnum):
    """The operations of a channel layer that are recorded."""

    SEND = "send"
    GROUP_SEND = "group_send"
    GROUP_ADD = "group_add"
    GROUP_DISCARD = "group_discard"


CANCELLED: Final = "cancelled by its caller"  # the error of such a call
REPORTED: Final = "one of those sent meanwhile was reported as failed, or perhaps"
WRITES: Final = (Verb.SEND, Verb.GROUP_SEND)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call; not `completed_s` means that its process ended, or that it hangs."""

    id: str
    process: str
    task: str
    verb: Verb
    name: str
    shard: str
    invoked_s: float
    number: int = 0
    member: str = ""
    completed_s: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""

    @property
    def settled_s(self) -> float:
        """When its outcome was known; when it began, if it never was."""
        return self.invoked_s if self.completed_s is None else self.completed_s

    @property
    def writer(self) -> str:
        return f"{self.process}/{self.task}"

    @property
    def message(self) -> str:
        """The name of what it writes."""
        return f"{self.process}/{self.task}/{self.number}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """receive() returned a message."""

    process: str
    channel: str
    message: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """A fault was in force; `effect` counts how often it provably struck.

    No `shards` means all shards, no `processes` all processes. Processes are named without a life.
    `invariant` is the promise by which it changes nothing (P5 of planned changes, P7 of ZooKeeper,
    P10 of clocks): it explains no loss and no error. Empty: it may lose messages. Not 0: the names
    of its shards are served elsewhere so many seconds after its begin.
    """

    fault: str
    began_s: float
    ended_s: float
    shards: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    effect: int = 0
    invariant: str = ""
    rehomed_within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A process began to read a process-specific channel, whose inbox is on `shard`."""

    process: str
    channel: str
    shard: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a process; `killed` unless it ended by itself at the end of the run.

    It could begin to work at `ready_s`, which is 0 if nobody saw that.
    """

    process: str
    began_s: float
    ended_s: float
    killed: bool = False
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counted:
    """A process counted messages as lost, at the latest at this time."""

    process: str
    reason: str
    count: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What was on a shard at the end: keys, keys without a TTL, messages that wait in queues."""

    shard: str
    keys: int
    unbounded: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Something raised what it must not."""

    process: str
    where: str
    error: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Stall:
    """A process stood still: stopped, or its event loop blocked."""

    process: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Header:
    """What was run, and the bounds that its configuration promises."""

    scenario: str
    seed: int
    began_s: float
    quiet_s: float  # nothing is written from here on
    ended_s: float
    timeout_s: float
    expiry_s: float
    invariants: tuple[str, ...]
    expects_unknown: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    layer: str = "cluster-layer"
    environment: str = "local"


@dataclass(frozen=True, slots=True)
class History:
    """All events of a run; operations by their id, everything else in order of time.

    `answers` keeps what `asked_once` has worked out from them.
    """

    header: Header
    operations: Mapping[str, Operation] = field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = ()
    windows: tuple[Window, ...] = ()
    opened: tuple[Opened, ...] = ()
    lives: tuple[Life, ...] = ()
    counted: tuple[Counted, ...] = ()
    audits: tuple[Audit, ...] = ()
    failures: tuple[Failure, ...] = ()
    stalls: tuple[Stall, ...] = ()
    answers: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def faults(self) -> tuple[Window, ...]:
        """The windows of what may lose messages."""
        return tuple(window for window in self.windows if not window.invariant)


def asked_once(question: Callable[[History], Answer]) -> Callable[[History], Answer]:
    """A question that several checkers ask of a history is answered once.

    Nobody may change the answer.
    """

    @wraps(question)
    def answer(history: History) -> Answer:
        if question not in history.answers:
            history.answers[question] = question(history)
        found: Answer = history.answers[question]
        return found

    return answer


_KINDS: Final[Mapping[str, type[Any]]] = {
    "header": Header,
    "delivery": Delivery,
    "window": Window,
    "opened": Opened,
    "life": Life,
    "counted": Counted,
    "audit": Audit,
    "failure": Failure,
    "stall": Stall,
}


def event_of(value: Any) -> Event:
    """The event that records a value (anything but an operation, which has two)."""
    kind = next(kind for kind, known in _KINDS.items() if isinstance(value, known))
    return {"e": kind, **asdict(value)}


def events_of(operation: Operation) -> list[Event]:
    """The two events of an operation; one, if it never returned."""
    values = asdict(operation)
    ending = ("completed_s", "outcome", "error")
    begun = {"e": "invoke", **{k: v for k, v in values.items() if k not in ending}}
    if operation.completed_s is None:
        return [begun]
    return [begun, {"e": "complete", "id": operation.id, **{k: values[k] for k in ending}}]


def parse(lines: Iterable[str]) -> list[Event]:
    """The events of a file; MalformedHistory names the line.

    A process that is killed may leave half a line at the end of its file, which is left out, and
    so are the zero bytes behind it.
    """
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n") or "\0" in line:
            break
        try:
            event = json.loads(line)
            event["e"]  # whatever has none is no event
            events.append(event)
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedHistory(f"line {number} is no event: {line[:80]!r}") from error
    return events


def history_of(events: Iterable[Event]) -> History:
    """Put events together; MalformedHistory if they are none or the header is missing."""
    operations: dict[str, Operation] = {}
    begun: dict[str, dict[str, Any]] = {}
    values: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for event in events:
        try:
            _sort_in(event, begun, operations, values)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedHistory(f"not an event: {str(event)[:200]}") from error
    try:
        operations |= {name: Operation(**fields) for name, fields in begun.items()}
    except TypeError as error:
        raise MalformedHistory(f"not the begin of an operation: {error}") from error
    if len(values["header"]) != 1:
        raise MalformedHistory(f"a history has one header, this one has {len(values['header'])}")
    return History(
        header=values["header"][0],
        operations=operations,
        deliveries=tuple(sorted(values["delivery"], key=lambda one: one.at_s)),
        windows=tuple(sorted(values["window"], key=lambda one: one.began_s)),
        opened=tuple(values["opened"]),
        lives=tuple(values["life"]),
        counted=tuple(sorted(values["counted"], key=lambda one: one.at_s)),
        audits=tuple(values["audit"]),
        failures=tuple(values["failure"]),
        stalls=tuple(values["stall"]),
    )


def _sort_in(
    event: Event,
    begun: dict[str, dict[str, Any]],
    operations: dict[str, Operation],
    values: dict[str, list[Any]],
) -> None:
    fields = dict(event)
    kind = fields.pop("e")
    if kind == "invoke":
        fields["verb"] = Verb(fields["verb"])
        begun[fields["id"]] = fields
    elif kind == "complete":
        fields["outcome"] = Outcome(fields["outcome"])
        operation = Operation(**begun.pop(fields.pop("id")), **fields)
        operations[operation.id] = operation
    elif kind == "delivery":
        values[kind].append(Delivery(**fields))
    else:
        frozen = {name: _frozen(value) for name, value in fields.items()}
        values[kind].append(_KINDS[kind](**frozen))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
