"""How a defect is put into a program that runs."""

from __future__ import annotations

from collections.abc import Callable

Install = Callable[[], None]


def swap(owner: object, name: str, value: object) -> None:
    """Put another attribute in its place."""
    setattr(owner, name, value)


def installer(known: dict[str, Install]) -> Callable[[Install], Install]:
    """A decorator that notes a function under its name, with hyphens."""

    def note(install: Install) -> Install:
        known[install.__name__.replace("_", "-")] = install
        return install

    return note
