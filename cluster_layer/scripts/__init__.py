"""The Lua scripts, one per operation; each file's header names its keys, arguments and reply.

Those that write begin with `fence.lua`, which refuses writers that are late or behind.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text and the name under which a shard caches it."""

    text: str
    sha: str


def _text_of(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.lua").read_text("utf-8")


_FENCE = _text_of("fence")


def _load(name: str, *, fenced: bool = True) -> Script:
    text = _FENCE + _text_of(name) if fenced else _text_of(name)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


INBOX_APPEND = _load("inbox_append")
QUEUE_PUSH = _load("queue_push")
QUEUE_POP = _load("queue_pop", fenced=False)
QUEUE_RETURN = _load("queue_return")
QUEUE_TAKE = _load("queue_take")
QUEUE_SETTLE = _load("queue_settle")
QUEUE_RECEIVE = _load("queue_receive")
GROUP_SEND = _load("group_send")
GROUP_STORE = _load("group_store")
GROUP_LEAVE = _load("group_leave")
GROUP_JOIN = _load("group_join")
GROUP_QUIT = _load("group_quit")
GROUP_ASK = _load("group_ask")
ANSWER = _load("answer", fenced=False)
MEMBERS_CLEAN = _load("members_clean")
TOPOLOGY_INSTALL = _load("topology_install", fenced=False)
REPORT = _load("report", fenced=False)

#: What every process uses; the others belong to whoever changes the topology.
ALL = (
    INBOX_APPEND,
    QUEUE_PUSH,
    QUEUE_POP,
    QUEUE_RETURN,
    GROUP_SEND,
    GROUP_STORE,
    GROUP_LEAVE,
    GROUP_JOIN,
    GROUP_QUIT,
    GROUP_ASK,
    TOPOLOGY_INSTALL,
    REPORT,
)
