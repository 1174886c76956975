"""Who is told of a change while it is driven: a terminal, a log, or another program."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cluster_layer.cli import render_changes
from cluster_layer.cli.driving import Choice, Watcher
from topology.progress import Progress

_CHOICES: Final = {
    "w": Choice.WITHOUT,
    "p": Choice.PAUSE,
    "a": Choice.ABORT,
    "q": Choice.LEAVE,
}
_HELP: Final = "type and press Enter: p pause, a abort, q leave it (resumable)"
_HELP_HELD: Final = "w go on without these processes (they may lose messages), "
_BAR_WIDTH: Final = 50


class Teller(Watcher, Protocol):
    """A watcher that is told of the rest, too."""

    def tell(self, event: str, text: str, /, **fields: Any) -> None:
        """Something that happened beside the progress."""


class JsonLines:
    """One JSON object per line, each with its `event`."""

    def tell(self, event: str, text: str, /, **fields: Any) -> None:
        click.echo(json.dumps({"event": event, **(fields or {"text": text})}))

    def show(self, progress: Progress) -> None:
        self.tell("progress", "", **render_changes.progress_json(progress))

    def choice(self) -> Choice | None:
        return None


class Lines:
    """A line whenever there is something new: for logs and pipes."""

    def __init__(self) -> None:
        self._told: object = None

    def tell(self, _event: str, text: str, /, **_fields: Any) -> None:
        click.echo(text)

    def show(self, progress: Progress) -> None:
        waits_for = [hold.process for hold in progress.holds], sorted(progress.shards)
        news = (progress.epoch, progress.trouble, waits_for)
        if news != self._told:
            self._told = news
            click.echo(render_changes.progress_line(progress))

    def choice(self) -> Choice | None:
        return None


class Terminal:
    """A bar and what is waited for; the operator decides by typing a letter."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._letters = ""

    def tell(self, _event: str, text: str, /, **_fields: Any) -> None:
        self._live.console.print(Text(text))

    def show(self, progress: Progress) -> None:
        bar = ProgressBar(max(1, progress.slots), progress.slots_done, width=_BAR_WIDTH)
        parts: list[Any] = [bar, Text(render_changes.progress_state(progress))]
        parts += [Text(f"  {why}") for why in render_changes.reasons_to_wait(progress)]
        if progress.outcome is None:
            parts.append(Text((_HELP_HELD if progress.holds else "") + _HELP, style="dim"))
        self._live.update(Group(*parts), refresh=True)

    def choice(self) -> Choice | None:
        self._letters += _typed()
        line, end, rest = self._letters.partition("\n")
        if not end:
            return None
        self._letters = rest
        return _CHOICES.get(line.strip().lower())


@contextmanager
def teller(*, as_json: bool) -> Iterator[Teller]:
    """Who is told here."""
    console = Console()
    if as_json:
        yield JsonLines()
    elif not console.is_terminal or not sys.stdin.isatty():
        yield Lines()
    else:
        with Live(console=console, auto_refresh=False) as live:
            yield Terminal(live)


def _typed() -> str:
    """What was typed since the last time; the terminal gives whole lines."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return ""
    return os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
