"""The check's outcome as a table: one column per shard, so that it fits a narrow terminal."""

from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from cluster_layer.demo.ledger import Outage, ShardAccount

# Title, how to count it, and whether anything but zero is a failure.
_ROWS: list[tuple[str, Callable[[ShardAccount], int], bool]] = [
    ("rooms", lambda account: account.rooms, False),
    ("messages sent", lambda account: account.sent, False),
    ("refused while down", lambda account: account.refused - account.refused_otherwise, False),
    ("refused otherwise", lambda account: account.refused_otherwise, True),
    ("deliveries due", lambda account: account.due, False),
    ("delivered", lambda account: account.delivered, False),
    ("duplicates", lambda account: account.duplicates, True),
    ("out of order", lambda account: account.reordered, True),
    ("delivered though refused", lambda account: account.after_refusal, True),
    ("lost while down", lambda account: account.lost_in_outage, False),
    ("lost otherwise", lambda account: account.lost_otherwise, True),
]


def accounts_table(accounts: Sequence[ShardAccount], outage: Outage | None) -> Table:
    table = Table(title="What became of every message", caption=_caption(outage))
    table.add_column("")
    for account in accounts:
        killed = outage is not None and outage.shard == account.shard
        table.add_column(account.shard + ("\n(killed)" if killed else ""), justify="right")
    table.add_column("all", justify="right")
    for title, count, must_be_zero in _ROWS:
        counts = [count(account) for account in accounts]
        cells = [_cell(number, must_be_zero) for number in [*counts, sum(counts)]]
        table.add_row(title, *cells)
    table.add_section()
    table.add_row("seconds to heal", *[_seconds(account, outage) for account in accounts], "")
    return table


def _cell(count: int, must_be_zero: bool) -> Text:
    style = "bold red" if must_be_zero and count else "green" if must_be_zero else ""
    return Text(f"{count:,}", style=style)


def _seconds(account: ShardAccount, outage: Outage | None) -> str:
    if outage is None or account.shard != outage.shard:
        return "-"
    return "never" if account.seconds_to_heal is None else f"{account.seconds_to_heal:.2f}"


def _caption(outage: Outage | None) -> str:
    unit = "a delivery is one message for one member of its room"
    if outage is None:
        return unit
    away_s = outage.back_at - outage.killed_at
    return f"{unit}; {outage.shard} was killed with -9 and came back blank {away_s:.1f} s later"
