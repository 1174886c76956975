"""What a caller wants of one message alone: how long it may wait, and who must not get it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster_layer.envelope import MAX_EXCLUDED
from cluster_layer.errors import InvalidMessage
from cluster_layer.names import require_channel_name


class Terms(NamedTuple):
    """`expiry_ms` is None for that of the CONFIG; `exclude` are members of the group."""

    expiry_ms: int | None = None
    exclude: frozenset[str] = frozenset()


USUAL = Terms()


def terms_of(expiry: float | None, exclude: Iterable[str], longest: float) -> Terms:
    """The terms of one call. InvalidMessage, InvalidName: they can't be; times in seconds."""
    if expiry is None and not exclude:
        return USUAL
    return Terms(_milliseconds(expiry, longest), _excluded(exclude))


def _milliseconds(expiry: float | None, longest: float) -> int | None:
    if expiry is None:
        return None
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    if not is_number or not 0.001 <= expiry <= longest:
        raise InvalidMessage(
            f"expiry {expiry!r:.60} is not allowed: a number of seconds from 0.001 to "
            f"{longest:g} is, which is CONFIG expiry; a message that may wait longer needs a "
            "layer with a longer one"
        )
    return round(expiry * 1000)


def _excluded(exclude: Iterable[str]) -> frozenset[str]:
    if isinstance(exclude, str):
        raise InvalidMessage(f"exclude {exclude!r:.60} is a str: give it as a list, [{exclude!r}]")
    names = frozenset(exclude)
    for name in names:
        require_channel_name(name)
    if len(names) > MAX_EXCLUDED:
        raise InvalidMessage(
            f"exclude names {len(names):,} channels, {MAX_EXCLUDED:,} are allowed: "
            "use a group of those that shall get the message"
        )
    return names
