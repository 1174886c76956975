"""Reading JSON documents field by field; every mistake is a TopologyInvalid that names it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NoReturn, TypeVar

from topology.errors import TopologyInvalid

_Member = TypeVar("_Member", bound=Enum)
_Item = TypeVar("_Item")


def parsed(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The JSON object in the bytes, at most ``limit`` of them; ``what`` names it in errors."""
    if len(data) > limit:
        raise TopologyInvalid(f"{len(data)} bytes are no {what}: the limit is {limit}")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TopologyInvalid(f"{len(data)} bytes are not a JSON {what}: {error}") from None
    if not isinstance(document, dict):
        raise TopologyInvalid(f"a {what} is a JSON object, not {type(document).__name__}")
    return document


def require_version(document: Mapping[str, Any], known: int, what: str) -> None:
    version = document.get("version")
    if type(version) is not int or version != known:
        raise TopologyInvalid(
            f"the {what} has version {shown(version)}, this software reads {known}"
        )


def typed(mapping: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = mapping.get(key)
    if type(value) is not kind:
        raise TopologyInvalid(
            f"{where}: {key!r} must be {kind.__name__}, not {type(value).__name__}"
        )
    return value


def items(
    mapping: Mapping[str, Any], key: str, where: str, decoded: Callable[[int, object], _Item]
) -> tuple[_Item, ...]:
    """What ``decoded`` makes of each entry of a list, given its index."""
    return tuple(
        [decoded(index, entry) for index, entry in enumerate(typed(mapping, key, list, where))]
    )


def member(kind: type[_Member], mapping: Mapping[str, Any], key: str, where: str) -> _Member:
    try:
        return kind(mapping.get(key))
    except ValueError:
        raise TopologyInvalid(f"{where}: {key!r} is {shown(mapping.get(key))}") from None


def as_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TopologyInvalid(f"{where} must be an object, not {type(value).__name__}")
    return value


def shown(value: object) -> str:
    return repr(value)[:40]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
