"""Who is in a group: its subscribers are asked, and the shard names the stored members.

A question is published on the group's own channel. Each process answers in order with the group's
messages, so what is found is exactly whom the next message would reach: whoever joined before the
call is in it, whoever left before it is not. That also holds while the group's slot moves, for a
question goes where a message would go, and is refused where that would be refused. Asking changes
nothing, so it may be done again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cluster_layer import answers, scripts
from cluster_layer.controls import Answer, Control, answer_of, pack
from cluster_layer.envelope import CONTROL, encode
from cluster_layer.errors import AnswersMissing, DeliveryUnknown, ShardUnavailable
from cluster_layer.keys import Keys
from cluster_layer.links import Links
from cluster_layer.names import channel_name_of
from topology.errors import ClusterError

if TYPE_CHECKING:
    from cluster_layer.batching import Command

logger = logging.getLogger("cluster_layer")

#: The share of the time after which it is asked anew: a process that was counted and has ended
#: since never answers.
FIRST_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Census:
    """What is known of a group at one moment; complete if all of `asked` have answered."""

    asked: int
    stored: frozenset[str]
    counts: dict[str, int] = field(default_factory=dict)  # process id -> members it serves
    names: frozenset[str] = frozenset()  # that they serve, if they were asked for names

    @property
    def missing(self) -> int:
        return self.asked - len(self.counts)

    @property
    def count(self) -> int:
        """How many members; none is both stored and served."""
        return len(self.stored) + sum(self.counts.values())


class Questioner:
    """Asks for the members of groups; belongs to one loop."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._loop = asyncio.get_running_loop()

    async def channels(self, group: str, timeout_s: float) -> frozenset[str]:
        """The names of all members. AnswersMissing, ShardUnavailable."""
        census = await self._ask(group, timeout_s, names=True)
        self._require_complete(group, census, timeout_s)
        return census.stored | census.names

    async def count(self, group: str, timeout_s: float) -> int:
        """How many members there are. AnswersMissing, ShardUnavailable."""
        census = await self._ask(group, timeout_s)
        self._require_complete(group, census, timeout_s)
        return census.count

    async def exists(self, group: str, timeout_s: float) -> bool:
        """Whether there is a member. AnswersMissing, ShardUnavailable."""
        census = await self._ask(group, timeout_s, any_will_do=True)
        if not census.count:
            self._require_complete(group, census, timeout_s)
        return census.count > 0

    def _require_complete(self, group: str, census: Census, timeout_s: float) -> None:
        if census.missing > 0:
            known = census.stored | census.names
            raise AnswersMissing(group, census.missing, census.asked, timeout_s, known)

    async def _ask(
        self, group: str, timeout_s: float, *, names: bool = False, any_will_do: bool = False
    ) -> Census:
        deadline = self._loop.time() + timeout_s
        try:
            census = await self._ask_once(group, FIRST_SHARE * timeout_s, names=names)
            while census.missing > 0 and (left_s := deadline - self._loop.time()) > 0:
                if any_will_do and census.count:
                    break
                census = await self._ask_once(group, left_s, names=names)
        except DeliveryUnknown as error:  # whether it was asked or not: nothing has changed
            raise ShardUnavailable(error.shard, error.reason) from error
        return census

    async def _ask_once(self, group: str, timeout_s: float, *, names: bool) -> Census:
        token = secrets.token_hex(8)
        want = "names" if names else "count"
        question = pack({"op": "who", "group": group, "token": token, "want": want})
        envelope = encode(CONTROL, 0, None, None, question)

        def build(keys: Keys) -> tuple[Sequence[bytes], Command]:
            return (keys.members(group), keys.seq), (keys.group(group), envelope)

        shard, reply = await self._links.run_at_home(group, scripts.GROUP_ASK, build)
        asked, *stored = reply
        link = self._links.to(shard)
        census = Census(asked, frozenset(filter(None, map(channel_name_of, stored))))
        if not asked:
            return census
        connection, key = await link.ready(), link.keys.reply(token)
        await answers.wait_for(connection, key, asked, timeout_s)
        return _with_answers(census, await answers.take(connection, key))


def _with_answers(census: Census, given: Sequence[bytes]) -> Census:
    counts: dict[str, int] = {}
    names: set[str] = set()
    for answered in filter(None, map(answer_of, given)):
        counts[answered.process_id] = answered.members
        names.update(answered.names)
    return Census(census.asked, census.stored, counts, frozenset(names))


async def answer(links: Links, process_id: str, control: Control, members: Sequence[str]) -> None:
    """Answer a question, on the side of a process that serves these members."""
    names = tuple(members) if control.fields.get("want") == "names" else ()
    shard = control.lane.shard
    try:
        link = links.to(shard)
        connection = await link.ready()
        key = link.keys.reply(control.fields.get("token", ""))
        await answers.give(connection, key, Answer(process_id, len(members), names).pack())
    except ClusterError as error:
        logger.info("shard %s: a question could not be answered: %s", shard, error)
