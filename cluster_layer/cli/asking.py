"""Asking whoever sits at the terminal."""

from __future__ import annotations

import asyncio
import sys

import click


def require_somebody(*, yes: bool, as_json: bool) -> None:
    """UsageError if consent is needed and nobody is there to give it."""
    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask: add --yes (or --dry-run to look only)")


async def consent(question: str) -> None:
    """click's Abort unless the answer is yes. Ctrl-C ends it, as it ends everything."""
    click.echo(f"{question} [y/N]: ", nl=False)
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise click.Abort
