"""What an expression of Prometheus asks for, without Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
# A name that no parenthesis follows is no function.
_SELECTOR = re.compile(r"(?<![\w.$])([A-Za-z_:][\w:]*)(?![\w:]|\s*\()\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_TEMPLATE = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class Selector(NamedTuple):
    """A metric, and the labels that it must have, with what they are compared with."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expression: str) -> Iterator[Selector]:
    """All that an expression reads."""
    for name, matchers in _SELECTOR.findall(_RANGE.sub("", _GROUPING.sub(" ", expression))):
        if name.lower() not in _WORDS:
            yield Selector(name, tuple(_MATCHER.findall(matchers)))


def groupings(expression: str) -> set[str]:
    """The labels by which an expression puts its series together, `le` aside."""
    found = (names.split(",") for _, names in _GROUPING.findall(expression))
    return {name.strip() for names in found for name in names if name.strip()} - {"le"}


def shown(template: str) -> set[str]:
    """The labels in a legend or an annotation."""
    return set(_TEMPLATE.findall(template))
