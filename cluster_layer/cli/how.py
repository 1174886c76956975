"""How an operator wants something to be executed: a value, and the options that it comes from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cluster_layer.cli import asking, options
from topology.prechecks import CHECKS

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_STEP: Final = 256
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class How:
    """How an operator wants a plan to be executed."""

    without: Collection[str] = ()  # processes that are not waited for
    patience_s: float | None = None  # then the change is paused; None: as long as it takes
    step: int = DEFAULT_STEP
    forced: Collection[str] = ()
    steal: bool = False
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False
    out: Path | None = None


def how_options(*, plans: bool, drives: bool = True, asks: bool = True) -> Callable[[F], F]:
    """The options of a verb that executes something; the command gets them as `how`."""
    decorators = [
        click.option("--dry-run", is_flag=True, help="Look and show, and change nothing."),
        options.as_json,
    ]
    if asks:
        decorators.append(click.option("--yes", is_flag=True, help="Do not ask."))
    if drives:
        decorators += [
            click.option(
                "--without",
                multiple=True,
                metavar="PROCESS",
                help="Do not wait for this process, which may lose messages; may be repeated.",
            ),
            click.option(
                "--patience",
                type=click.FloatRange(min=0),
                metavar="SECONDS",
                help="Pause the change when it has waited for something for so long (without a "
                f"terminal {_PATIENCE_S:g}; with one you decide).",
            ),
            click.option("--steal", is_flag=True, help="Take the lock from whoever holds it."),
        ]
    if plans:
        decorators += [
            click.option(
                "--force",
                "forced",
                multiple=True,
                type=click.Choice(list(CHECKS)),
                help="Do it although this check speaks against it; may be repeated.",
            ),
        ]
    if plans and drives:
        decorators += [
            click.option(
                "--step",
                type=click.IntRange(1, 4096),
                default=DEFAULT_STEP,
                show_default=True,
                help="Slots that move at the same time.",
            ),
            click.option(
                "--out",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Save the plan, passwords included, for `apply`.",
            ),
        ]

    def decorated(command: F) -> F:
        @functools.wraps(command)
        def with_how(*arguments: Any, **given: Any) -> Any:
            return command(*arguments, how=_how_from(given, asks=asks), **given)

        for decorate in reversed(decorators):
            decorate(with_how)
        return with_how  # type: ignore[return-value]  # the options are click's business

    return decorated


def _how_from(given: dict[str, Any], *, asks: bool) -> How:
    """Takes out of `given` what is a How's."""
    patience_s = given.pop("patience", None)
    decides = sys.stdin.isatty() and sys.stdout.isatty() and not given.get("as_json")
    if patience_s is None and not decides:
        patience_s = _PATIENCE_S
    names = ("without", "step", "forced", "steal", "dry_run", "yes", "as_json", "out")
    taken = {name: given.pop(name) for name in names if name in given}
    how = How(patience_s=patience_s, **taken)
    if asks and not how.dry_run:
        asking.require_somebody(yes=how.yes, as_json=how.as_json)
    return how
