"""The Lua scripts, one per operation; each file's header names its keys, arguments and reply."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text and the name under which a shard caches it."""

    text: str
    sha: str


def _load(name: str) -> Script:
    text = resources.files(__name__).joinpath(f"{name}.lua").read_text("utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


INBOX_APPEND = _load("inbox_append")
QUEUE_PUSH = _load("queue_push")
QUEUE_POP = _load("queue_pop")
QUEUE_RETURN = _load("queue_return")
GROUP_SEND = _load("group_send")
GROUP_STORE = _load("group_store")
GROUP_LEAVE = _load("group_leave")
GROUP_JOIN = _load("group_join")

ALL = (
    INBOX_APPEND,
    QUEUE_PUSH,
    QUEUE_POP,
    QUEUE_RETURN,
    GROUP_SEND,
    GROUP_STORE,
    GROUP_LEAVE,
    GROUP_JOIN,
)
