"""Slices of histories that showed defects of the layer, since mended (docs/chaos.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.checkers import CHECKERS
from chaos.checkers.base import Verdict
from chaos.history import History, history_of, parse

FOUND = sorted((Path(__file__).parent / "found").glob("*.jsonl"))


def slice_in(path: Path) -> History:
    with path.open(encoding="utf-8") as lines:
        return history_of(parse(lines))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_once_is_found_again(path: Path) -> None:
    """By the checker of the promise that its name begins with."""
    invariant = path.stem.partition("-")[0]
    names = {"P1", "P3", invariant}
    verdicts = {name: CHECKERS[name](slice_in(path)).verdict for name in names}
    assert [name for name, verdict in verdicts.items() if verdict is Verdict.INVALID] == [invariant]


def test_a_slice_is_small() -> None:
    """What was left out would not have changed the verdict."""
    assert FOUND
    assert all(path.stat().st_size < 4000 for path in FOUND)
