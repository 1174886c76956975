"""Hand-written histories, told in few words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.history import (
    Delivery,
    Header,
    History,
    Life,
    Opened,
    Operation,
    Outcome,
    Verb,
    Window,
)

CHANNEL = "specific.p1!a"
OTHER = "specific.p1!b"


@dataclass
class Story:
    """A history in the making; process p0 writes, p1 reads, times are seconds."""

    operations: dict[str, Operation] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def write(
        self,
        number: int,
        at_s: float,
        *,
        to: str = CHANNEL,
        group: str | None = None,
        outcome: Outcome = Outcome.OK,
        took_s: float | None = 0.01,
        shard: str = "shard-0",
        error: str = "",
    ) -> Story:
        """p0's task w writes; `took_s` None: the call never returned."""
        verb = Verb.SEND if group is None else Verb.GROUP_SEND
        self._add(verb, group or to, at_s, took_s, outcome, number=number, shard=shard, error=error)
        return self

    def join(self, at_s: float, *, by: str = "p1.0", outcome: Outcome = Outcome.OK) -> Story:
        """CHANNEL joins the group "room"."""
        self._add(Verb.GROUP_ADD, "room", at_s, 0.01, outcome, member=CHANNEL, process=by)
        return self

    def leave(self, at_s: float, *, took_s: float = 0.01, outcome: Outcome = Outcome.OK) -> Story:
        self._add(Verb.GROUP_DISCARD, "room", at_s, took_s, outcome, member=CHANNEL)
        return self

    def read(
        self, number: int, at_s: float, *, channel: str = CHANNEL, process: str = "p1.0"
    ) -> Story:
        self.deliveries.append(Delivery(process, channel, f"p0.0/w/{number}", at_s))
        return self

    def fault(self, began_s: float, ended_s: float, **more: Any) -> Story:
        self.windows.append(Window("shard-kill", began_s, ended_s, effect=1, **more))
        return self

    def told(self, **more: Any) -> History:
        """The history; `more` are its other fields, or `header` fields."""
        header: dict[str, Any] = {"timeout_s": 1.0, "expiry_s": 60.0, "expects_unknown": False}
        header |= {name: more.pop(name) for name in tuple(header) if name in more}
        return History(
            header=Header("story", 1, 0.0, 100.0, 110.0, invariants=("P1",), **header),
            operations=self.operations,
            deliveries=tuple(self.deliveries),
            windows=tuple(self.windows),
            opened=(Opened("p1.0", CHANNEL, "shard-0", 0.0), Opened("p1.0", OTHER, "shard-0", 0.0)),
            **{"lives": (Life("p0.0", 0.0, 110.0), Life("p1.0", 0.0, 110.0)), **more},
        )

    def _add(
        self,
        verb: Verb,
        name: str,
        at_s: float,
        took_s: float | None,
        outcome: Outcome,
        **more: Any,
    ) -> None:
        operation_id = str(len(self.operations))
        fields = {"process": "p0.0", "shard": "shard-0", **more}
        self.operations[operation_id] = Operation(
            id=operation_id,
            task="w",
            verb=verb,
            name=name,
            invoked_s=at_s,
            completed_s=None if took_s is None else at_s + took_s,
            outcome=outcome,
            **fields,
        )
