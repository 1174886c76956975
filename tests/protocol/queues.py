"""A normal channel whose slot moves: what waits in its queue reaches one reader, once.

One process pushes, another one pops; the coordinator moves what nobody reads, in batches: from the
queue to a list of its own on the old home (take), to the head of the queue on the new home together
with a receipt (push), and off the list (drop). It may be killed with a request on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.protocol.control import (
    NAMES,
    SHARDS,
    Control,
    Faults,
    Rules,
    coordinator_steps,
    crashes,
    learning,
    newest,
    node,
    put,
)
from topology.transitions import Stage

Messages = tuple[int, ...]


class Push(NamedTuple):
    """A write of the pushing process, on its way."""

    known: int
    shard: int


class Batch(NamedTuple):
    """What was taken from a queue, on a list of its own on the old home."""

    number: int
    messages: Messages
    target: int
    life: int  # of the target when it was taken


class Request(NamedTuple):
    """What a coordinator, which may be dead by now, has sent to a shard."""

    verb: str
    doc: int
    shard: int
    batch: Batch | None = None
    life: int = 0  # take: of the shard that the batch is for


class State(NamedTuple):
    control: Control
    writer: int
    message: int
    push: Push | None
    acknowledged: frozenset[int]
    reader: int
    queues: tuple[Messages, Messages]
    batches: tuple[tuple[Batch, ...], tuple[Batch, ...]]
    receipts: tuple[frozenset[int], frozenset[int]]
    taken: int  # how many batches there have been
    requests: tuple[Request, ...]
    delivered: tuple[int, ...]


class Queues:
    """``reads``: whether the popping process pops during the change, or only after it."""

    def __init__(
        self, rules: Rules, faults: Faults, *, messages: int, requests: int = 2, reads: bool = True
    ) -> None:
        self.rules, self.messages, self.max_requests, self.reads = rules, messages, requests, reads
        control = Control.start(faults)
        self.start = State(
            control=control,
            writer=control.doc,
            message=0,
            push=None,
            acknowledged=frozenset(),
            reader=control.doc,
            queues=((), ()),
            batches=((), ()),
            receipts=(frozenset(), frozenset()),
            taken=0,
            requests=(),
            delivered=(),
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        control = state.control.having("copy").having("clean")
        here = control.node
        # A receiver settles as soon as it knows: it pops at whatever homes it knows.
        settled = state.reader == control.doc
        drained = here.other is None or not (state.queues[here.other] or any(state.batches))
        for name, changed in coordinator_steps(
            control, self.rules, settled=settled, drained=drained or not self.rules.drain
        ):
            yield name, state._replace(control=changed)
        for shard, changed in crashes(state.control):
            yield f"shard {NAMES[shard]} is killed", _wiped(state, shard, changed)
        if control.installed:
            yield from self._mover_steps(state)
        for request in state.requests:
            left = tuple(other for other in state.requests if other is not request)
            yield from self._served(state._replace(requests=left), request)
        yield from self._writer_steps(state)
        yield from self._reader_steps(state)

    # -- the coordinator

    def _mover_steps(self, state: State) -> Iterator[tuple[str, State]]:
        here, control = state.control.node, state.control
        moves = here.stage in (Stage.COMMITTED, Stage.UNDOING) and here.other is not None
        if not moves or len(state.requests) >= self.max_requests:
            return
        source, target = here.other, here.home
        assert source is not None
        wanted = []
        if state.queues[source] and not state.batches[source]:
            if self.rules.move_by_copy:
                batch = Batch(state.taken, state.queues[source], target, control.lives[target])
                wanted.append(Request("push", control.doc, target, batch))
            else:
                wanted.append(Request("take", control.doc, source, life=control.lives[target]))
        for shard in SHARDS:
            for batch in state.batches[shard]:
                # On the home, it is from before the change was undone: asking for the receipt
                # and giving back what has none is the same request to the other home.
                verb = "push" if batch.target == target else "ask"
                wanted.append(Request(verb, control.doc, batch.target, batch))
        for request in wanted:
            if request not in state.requests:
                name = f"a {request.verb} is sent to {NAMES[request.shard]}"
                yield name, state._replace(requests=(*state.requests, request))

    def _served(self, state: State, request: Request) -> Iterator[tuple[str, State]]:
        control, shard, batch = state.control, request.shard, request.batch
        if self.rules.fenced_helpers:
            if control.refuses(shard, request.doc, self.rules):
                yield f"{NAMES[shard]} refuses the {request.verb}", state
                return
            state = state._replace(control=control.written(shard, request.doc, self.rules))
        if request.verb == "take":
            yield "a batch is taken", self._taken(state, request)
        elif request.verb == "push" and batch is not None:
            yield from self._pushed(state, batch)
        elif request.verb == "ask" and batch is not None:
            # No push for it can come any more: the question has raised the fence.
            arrived = batch.number in state.receipts[shard]
            gone = state.control.lives[shard] != batch.life
            verb = "drop" if arrived or gone else "give back"
            answer = Request(verb, request.doc, 1 - shard, batch)
            yield f"the answer: {verb}", state._replace(requests=(*state.requests, answer))
        elif batch is not None:
            yield f"{NAMES[shard]} serves the {request.verb}", self._left(state, request, batch)

    def _left(self, state: State, request: Request, batch: Batch) -> State:
        """The batch leaves its list, if it is there yet: for nowhere, or back to the queue."""
        shard = request.shard
        if batch not in state.batches[shard]:
            return state
        left = tuple(other for other in state.batches[shard] if other != batch)
        queue = state.queues[shard]
        if request.verb == "give back":
            queue = (*batch.messages, *queue)
        return state._replace(
            batches=put(state.batches, shard, left), queues=put(state.queues, shard, queue)
        )

    def _taken(self, state: State, request: Request) -> State:
        shard = request.shard
        if not state.queues[shard] or state.batches[shard]:
            return state
        batch = Batch(state.taken, state.queues[shard], 1 - shard, request.life)
        return state._replace(
            queues=put(state.queues, shard, ()),
            batches=put(state.batches, shard, (batch,)),
            taken=state.taken + 1,
        )

    def _pushed(self, state: State, batch: Batch) -> Iterator[tuple[str, State]]:
        target, source = batch.target, 1 - batch.target
        name = f"batch {batch.messages} "
        left = tuple(other for other in state.batches[source] if other != batch)
        dropped = state._replace(batches=put(state.batches, source, left))
        if self.rules.same_life and state.control.lives[target] != batch.life:
            yield name + "was for another life, and is dropped", dropped
            return
        if self.rules.receipts and batch.number in state.receipts[target]:
            yield name + "has a receipt, and is dropped", dropped
            return
        arrived = state._replace(
            queues=put(state.queues, target, (*batch.messages, *state.queues[target])),
            receipts=put(state.receipts, target, state.receipts[target] | {batch.number}),
        )
        if self.rules.move_by_copy:
            rest = tuple(m for m in state.queues[source] if m not in batch.messages)
            arrived = arrived._replace(queues=put(arrived.queues, source, rest))
            yield name + "is copied", arrived
            return
        # The list on the old home is dropped when the answer is here: by who sent the push, or,
        # if he is killed before, by who finds it with a receipt.
        yield name + "is pushed, and the coordinator killed", arrived
        yield (
            name + "is pushed",
            arrived._replace(batches=put(arrived.batches, source, left)),
        )

    # -- the processes

    def _writer_steps(self, state: State) -> Iterator[tuple[str, State]]:
        control = state.control
        for name, told, known in learning(control, state.writer, "the writer"):
            yield name, state._replace(control=told, writer=known)
        push = state.push
        if push is None:
            if state.message < self.messages:
                push = Push(state.writer, node(state.writer).home)
                yield f"{state.message} is pushed to {NAMES[push.shard]}", state._replace(push=push)
        elif control.refuses(push.shard, push.known, self.rules):
            writer = newest(state.writer, control.copies[push.shard])
            yield f"{state.message} is refused", state._replace(writer=writer, push=None)
        else:
            queue = (*state.queues[push.shard], state.message)
            yield (
                f"{state.message} is stored on {NAMES[push.shard]}",
                state._replace(
                    control=control.written(push.shard, push.known, self.rules),
                    message=state.message + 1,
                    push=None,
                    acknowledged=state.acknowledged | {state.message},
                    queues=put(state.queues, push.shard, queue),
                ),
            )

    def _reader_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, told, known in learning(state.control, state.reader, "the reader"):
            yield name, state._replace(control=told, reader=known)
        here = node(state.reader)
        if not self.reads and here.stage is not Stage.IDLE:
            return
        for shard in here.homes if self.rules.two_homes else (here.home,):
            if state.queues[shard]:
                first, *rest = state.queues[shard]
                popped = state._replace(
                    queues=put(state.queues, shard, tuple(rest)),
                    delivered=(*state.delivered, first),
                )
                yield f"the reader pops {first} from {NAMES[shard]}", popped

    # -- what must not be

    def violation(self, state: State) -> str | None:
        if len(set(state.delivered)) != len(state.delivered):
            return "delivered twice"
        return None

    def violation_at_end(self, state: State) -> str | None:
        if state.control.node.stage is not Stage.IDLE:
            return f"stuck: {state.control.node.stage.value}"
        missing = state.acknowledged - set(state.delivered)
        if missing and not state.control.crashed:
            return f"lost {sorted(missing)}"
        return None


def _wiped(state: State, shard: int, control: Control) -> State:
    return state._replace(
        control=control,
        queues=put(state.queues, shard, ()),
        batches=put(state.batches, shard, ()),
        receipts=put(state.receipts, shard, frozenset()),
    )
