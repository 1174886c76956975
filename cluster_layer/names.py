"""Channel and group names, as the Channels specification allows them.

The pattern of Channels itself is wider (any Unicode digit or letter after the ``!``, a newline
at the end) and its limit narrower (99 characters); here the text of the specification decides.
"""

from __future__ import annotations

import re

from cluster_layer.errors import InvalidName

MAX_NAME_BYTES = 100

# Allowed names are ASCII, so characters are bytes. Nothing that was taken is ever given back (++),
# which saves a third of the time.
_is_channel = re.compile(r"[A-Za-z0-9._-]++(?:[!?][A-Za-z0-9._-]*+)?").fullmatch
_is_group = re.compile(r"[A-Za-z0-9._-]++").fullmatch

_ALPHABET = "ASCII letters, digits, '.', '-' and '_'"


def require_channel_name(name: object) -> None:
    """Return if this is the name of a channel; raise InvalidName with the broken rule if not."""
    if isinstance(name, str) and len(name) <= MAX_NAME_BYTES and _is_channel(name):
        return
    raise InvalidName(_complaint("channel", name, _channel_rule(name)))


def require_group_name(name: object) -> None:
    """Return if this is the name of a group; raise InvalidName with the broken rule if not."""
    if isinstance(name, str) and len(name) <= MAX_NAME_BYTES and _is_group(name):
        return
    raise InvalidName(_complaint("group", name, f"use only {_ALPHABET}"))


def channel_name_of(data: bytes) -> str | None:
    """The channel name that these bytes from a shard are; None if they are none."""
    try:
        name = data.decode("ascii")
        require_channel_name(name)
    except (UnicodeDecodeError, InvalidName):
        return None
    return name


def is_process_specific(channel: str) -> bool:
    """Whether only one process, whose id is in the name, receives this channel."""
    return "!" in channel


def inbox_name(channel: str) -> str:
    """The part up to and including ``!``, which capacity counts; a normal channel is its own."""
    return channel[: channel.find("!") + 1] or channel


def process_of(channel: str) -> str:
    """The id of the process that receives a process-specific channel."""
    return channel[: channel.find("!")].rpartition(".")[2]


def _channel_rule(name: object) -> str:
    if not isinstance(name, str):
        return ""
    if name.count("!") + name.count("?") > 1:
        return "one '!' or '?' at most"
    if name[:1] in ("!", "?"):
        return f"something must stand before {name[0]!r}"
    return f"use only {_ALPHABET}, and one '!' or '?'"


def _complaint(kind: str, name: object, rule: str) -> str:
    if not isinstance(name, str):
        return f"{kind} name {_shortened(name)} is a {type(name).__name__}: it must be a str"
    if not name:
        return f"{kind} name '' is empty: give it 1 to {MAX_NAME_BYTES} characters"
    if len(name) > MAX_NAME_BYTES:
        return (
            f"{kind} name {_shortened(name)} has {len(name)} characters: "
            f"{MAX_NAME_BYTES} are allowed"
        )
    return f"{kind} name {name!r} is not allowed: {rule}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
