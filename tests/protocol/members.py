"""A member that is stored on a shard, while its group's slot moves: there as long as it should be.

One process stores the member and lets it leave; another one sends, and serves the members that it
finds. The coordinator cleans, copies, and may be killed with a request of its own on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from tests.protocol.control import (
    NAMES,
    A,
    B,
    Control,
    Faults,
    Rules,
    coordinator_steps,
    learning,
    newest,
    node,
    put,
)
from topology.transitions import Stage


class Stored(Enum):
    """What a shard's set of members says."""

    NOTHING = "nothing"
    MEMBER = "a member"
    TOMBSTONE = "a tombstone"


class Change(NamedTuple):
    """A store or a leave, on its way to one shard after the other."""

    stores: bool
    known: int
    targets: tuple[int, ...]


class Send(NamedTuple):
    known: int
    shard: int
    allowed: frozenset[bool]  # whether the member may be served


class Request(NamedTuple):
    """What a coordinator, which may be dead by now, has sent to shard B."""

    verb: str
    doc: int
    coordinator: int
    found: Stored = Stored.NOTHING


class State(NamedTuple):
    control: Control
    owner: int  # what the process knows that stores the member
    changed: int  # how many of its changes are acknowledged
    change: Change | None
    sender: int
    sent: int
    send: Send | None
    sets: tuple[Stored, Stored]
    requests: tuple[Request, ...]
    wrong: str | None


class Members:
    """``changes``: true for a store, false for a leave, in the order in which they are made."""

    def __init__(
        self, rules: Rules, faults: Faults, *, changes: tuple[bool, ...], sends: int
    ) -> None:
        self.rules, self.changes, self.sends = rules, changes, sends
        control = Control.start(faults)
        self.start = State(
            control=control,
            owner=control.doc,
            changed=0,
            change=None,
            sender=control.doc,
            sent=0,
            send=None,
            sets=(Stored.NOTHING, Stored.MEMBER),  # B has it from another time
            requests=(),
            wrong=None,
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        control = state.control if self.rules.clean else state.control.having("clean")
        # Processes serve what is stored as soon as they know; nothing needs to be waited for.
        for name, changed in coordinator_steps(control, self.rules, settled=True):
            yield name, self._cleaned(state, changed)._replace(control=changed)
        yield from self._helper_steps(state)
        for name, told, known in learning(state.control, state.owner, "the owner"):
            yield name, state._replace(control=told, owner=known)
        for name, told, known in learning(state.control, state.sender, "the sender"):
            yield name, state._replace(control=told, sender=known)
        yield from self._owner_steps(state)
        yield from self._sender_steps(state)

    # -- the coordinator

    def _cleaned(self, state: State, changed: Control) -> State:
        """Who marks a shard as down cleans the home that gets the slot, if it is none yet."""
        before, home = state.control, changed.node.home
        is_rehoming = changed.faults.rehomes < before.faults.rehomes
        if not is_rehoming or home in before.node.homes or not self.rules.clean_for_rehoming:
            return state
        return state._replace(sets=put(state.sets, home, Stored.NOTHING))

    def _helper_steps(self, state: State) -> Iterator[tuple[str, State]]:
        control, stage = state.control, state.control.node.stage
        mine = control.faults.coordinator_crashes
        if stage is Stage.BETWEEN and not {"cleaning", "clean"} & control.done:
            request = Request("clean", control.doc, mine)
            yield "a clean is sent to B", self._requested(state, "cleaning", request)
        ready = control.installed and not {"copying", "copy"} & control.done
        if stage is Stage.PREPARED and ready:
            request = Request("copy", control.doc, mine, state.sets[A])
            yield f"{state.sets[A].value} is read on A", self._requested(state, "copying", request)
        for request in state.requests:
            yield self._served(state, request)

    def _requested(self, state: State, what: str, request: Request) -> State:
        control = state.control.having(what)
        return state._replace(control=control, requests=(*state.requests, request))

    def _served(self, state: State, request: Request) -> tuple[str, State]:
        left = tuple(other for other in state.requests if other is not request)
        control, verb = state.control, request.verb
        fenced = self.rules.fenced_helpers and control.refuses(B, request.doc, self.rules)
        if fenced:
            return f"B refuses the {verb}", state._replace(requests=left)
        stored = state.sets[B]
        if verb == "clean":
            stored = Stored.NOTHING
        elif request.found is Stored.MEMBER:
            if stored is Stored.NOTHING or not self.rules.copy_keeps:
                stored = Stored.MEMBER
        elif not self.rules.copy_keeps:
            stored = Stored.NOTHING
        if self.rules.fenced_helpers:
            control = control.written(B, request.doc, self.rules)
        alive = request.coordinator == control.faults.coordinator_crashes
        if alive and request.doc == control.doc:
            control = control.having(verb)
        name = f"the {verb} leaves {stored.value} on B"
        return name, state._replace(control=control, requests=left, sets=put(state.sets, B, stored))

    # -- the process that stores

    def _owner_steps(self, state: State) -> Iterator[tuple[str, State]]:
        change = state.change
        if change is None:
            if state.changed < len(self.changes):
                stores = self.changes[state.changed]
                begun = state._replace(change=self._begun(state.owner, stores))
                if state.send is not None:
                    allowed = state.send.allowed | {stores}
                    begun = begun._replace(send=state.send._replace(allowed=allowed))
                yield f"a {'store' if stores else 'leave'} begins", begun
            return
        shard, *rest = change.targets
        if state.control.refuses(shard, change.known, self.rules):
            owner = newest(state.owner, state.control.copies[shard])
            again = state._replace(owner=owner, change=self._begun(owner, change.stores))
            yield f"{NAMES[shard]} refuses it; it begins anew", again
            return
        stored = self._stored(change, shard)
        control = state.control.written(shard, change.known, self.rules)
        done = state._replace(control=control, sets=put(state.sets, shard, stored))
        name = f"it leaves {stored.value} on {NAMES[shard]}"
        if rest:
            yield name, done._replace(change=change._replace(targets=tuple(rest)))
        else:
            yield f"{name}, and returns", done._replace(change=None, changed=state.changed + 1)

    def _begun(self, known: int, stores: bool) -> Change:
        here = node(known)
        homes = here.homes if self.rules.two_homes else (here.home,)
        return Change(stores, known, homes)

    def _stored(self, change: Change, shard: int) -> Stored:
        here = node(change.known)
        if change.stores:
            return Stored.MEMBER
        if here.stage is Stage.PREPARED:
            buried = self.rules.tombstones and shard == here.other
        else:
            buried = self.rules.late_tombstones and here.stage is Stage.COMMITTED
        return Stored.TOMBSTONE if buried else Stored.NOTHING

    # -- the process that sends

    def _sender_steps(self, state: State) -> Iterator[tuple[str, State]]:
        send = state.send
        if send is None:
            if state.sent < self.sends:
                allowed = {state.changed > 0 and self.changes[state.changed - 1]}
                if state.change is not None:
                    allowed.add(state.change.stores)
                shard = node(state.sender).home
                begun = Send(state.sender, shard, frozenset(allowed))
                yield f"a message is sent on {NAMES[shard]}", state._replace(send=begun)
            return
        if state.control.refuses(send.shard, send.known, self.rules):
            sender = newest(state.sender, state.control.copies[send.shard])
            again = Send(sender, node(sender).home, send.allowed)
            yield "it is refused, and sent anew", state._replace(sender=sender, send=again)
            return
        serves = state.sets[send.shard] is Stored.MEMBER
        wrong = None
        control = state.control
        # What was stored on a lost shard is lost with it, and who does not know yet that a living
        # shard was marked as down goes by what is there.
        excused = send.shard in control.node.down if serves else control.crashed
        if serves not in send.allowed and not excused:
            wrong = "served after it left" if serves else "not served although it was stored"
        done = state._replace(send=None, sent=state.sent + 1, wrong=wrong)
        yield f"it finds {state.sets[send.shard].value}", done

    # -- what must not be

    def violation(self, state: State) -> str | None:
        return state.wrong

    def violation_at_end(self, state: State) -> str | None:
        if state.control.node.stage is not Stage.IDLE:
            return f"stuck: {state.control.node.stage.value}"
        return None
