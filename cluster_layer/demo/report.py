"""The check's outcome as a table: one column per shard, so that it fits a narrow terminal."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster_layer.demo.ledger import Ledger, Outage, Outcome, ShardAccount

_LINE_EVERY_S = 1.0

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


def accounts_table(accounts: Sequence[ShardAccount], outages: Sequence[Outage]) -> Table:
    table = Table(title="What became of every message", caption=_caption(outages))
    table.add_column("")
    for account in accounts:
        struck = any(outage.shard == account.shard for outage in outages)
        table.add_column(account.shard + ("\n(struck)" if struck else ""), justify="right")
    table.add_column("all", justify="right")
    for title, count, must_be_zero in _ROWS:
        counts = [count(account) for account in accounts]
        cells = [_cell(number, must_be_zero) for number in [*counts, sum(counts)]]
        table.add_row(title, *cells)
    table.add_section()
    table.add_row("seconds to heal", *[_seconds(account, outages) for account in accounts], "")
    return table


def _cell(count: int, must_be_zero: bool) -> Text:
    style = "bold red" if must_be_zero and count else "green" if must_be_zero else ""
    return Text(f"{count:,}", style=style)


def _seconds(account: ShardAccount, outages: Sequence[Outage]) -> str:
    if all(account.shard != outage.shard for outage in outages):
        return "-"
    return "never" if account.seconds_to_heal is None else f"{account.seconds_to_heal:.2f}"


def _caption(outages: Sequence[Outage]) -> str:
    parts = ["a delivery is one message for one member of its room"]
    for outage in outages:
        away_s = outage.back_at - outage.killed_at
        later = f" {away_s:.1f} s later" if outage.returns else ""
        parts.append(f"{outage.shard} {outage.how}{later}")
    return "; ".join(parts)


def report(console: Console, outcome: Outcome) -> int:
    """Print it all; the exit code, 0 if it passed, 1 if not."""
    console.print(accounts_table(outcome.accounts, outcome.outages))
    if outcome.strangers:
        console.print(f"{outcome.strangers} deliveries of what nobody sent", style="bold red")
    losses = [f"{reason}: {count:,}" for reason, count in outcome.counted_losses.items() if count]
    console.print("Losses that the layers counted:", ", ".join(losses) or "none")
    if outcome.passed:
        console.print(
            "Passed: every message sent outside the outage arrived everywhere, exactly once.",
            style="bold green",
        )
        return 0
    console.print("Failed: see the red figures, or a shard that did not heal.", style="bold red")
    return 1


class ProgressLine:
    """A live line on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_line_at = 0.0

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, phase: str, seconds_left: float, ledger: Ledger) -> None:
        line = (
            f"{phase:<28} {seconds_left:4.1f} s left   "
            f"{ledger.sent:>7,} sent {ledger.delivered:>9,} delivered"
        )
        if self._console.is_terminal:
            self._live.update(Text(line), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _LINE_EVERY_S
            self._console.print(line, markup=False, highlight=False)
