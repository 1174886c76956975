"""All rows, in the order in which they are shown."""

from __future__ import annotations

from benchmarks.rows import (
    commands,
    connection,
    groups,
    joining,
    latency,
    memory,
    processes,
    receiving,
    returning,
    scaling,
    sending,
    sync_calls,
    unconfirmed,
)
from benchmarks.rows.row import Row

ROWS: tuple[Row, ...] = (
    *sending.ROWS,
    *receiving.ROWS,
    *groups.ROWS,
    *unconfirmed.ROWS,
    *sync_calls.ROWS,
    *processes.ROWS,
    *joining.ROWS,
    *latency.ROWS,
    *commands.ROWS,
    *memory.ROWS,
    *returning.ROWS,
    *connection.ROWS,
    *scaling.ROWS,
)


def row_of(name: str) -> Row:
    """KeyError: there is no such row."""
    return {row.name: row for row in ROWS}[name]


def rows_of(selection: str) -> list[Row]:
    """Rows by family (`send`) or name (`send/100`), comma-separated. ValueError: there is none."""
    wanted = [word.strip() for word in selection.split(",") if word.strip()]
    for word in wanted:
        if not any(word in (row.name, row.family) for row in ROWS):
            known = ", ".join(dict.fromkeys(row.family for row in ROWS))
            raise ValueError(f"--rows {word}: there is no such row or family; families are {known}")
    return [row for row in ROWS if not wanted or row.name in wanted or row.family in wanted]
