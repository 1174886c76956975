"""`python -m cluster_layer.demo`: the demo for a person; with --check, for a machine."""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import click
from rich.console import Console

from cluster_layer.demo.check import CheckPlan, run_check
from cluster_layer.demo.report import ProgressLine, report
from cluster_layer.demo.site import Site
from topology.errors import ClusterError

# A killed shard stays away long enough for a person to see what that does.
_AWAY_S = 5.0


@click.command()
@click.option("--check", is_flag=True, help="Let clients talk, kill a shard, count, and exit.")
@click.option("--seconds", default=20.0, show_default=True, help="About how long --check talks.")
@click.option("--rooms", default=8, show_default=True, help="Rooms per shard for --check.")
@click.option("--clients", default=6, show_default=True, help="Clients per server for --check.")
def main(check: bool, seconds: float, rooms: int, clients: int) -> None:
    """A chat on three Redis shards and two servers, all on this host.

    --check exits 0 only if every message that was sent outside the outage arrived, exactly once,
    everywhere it should; 1 if not; 2 if the demo itself failed.
    """
    # A shell that starts us in the background has switched Ctrl-C off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_as_with_ctrl_c)
    console = Console()
    try:
        if check:
            sys.exit(_check(console, CheckPlan(seconds, rooms, clients)))
        _serve(console)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        sys.exit(130 if check else 0)
    except ClusterError as error:
        console.print(f"the demo failed: {error}", style="bold red", markup=False)
        sys.exit(2)


def _end_as_with_ctrl_c(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def _started_site(console: Console) -> Iterator[Site]:
    with ExitStack() as stack:
        with console.status("starting three shards and two servers"):
            site = stack.enter_context(Site())
        yield site


def _serve(console: Console) -> None:
    with _started_site(console) as site:
        console.print("The chat is served at")
        for url in site.urls:
            console.print(f"  {url}", style="bold green")
        console.print("Open both, join the same room, and kill a shard. Ctrl-C ends it all.")
        _bring_back_shards(site, console)


def _bring_back_shards(site: Site, console: Console) -> None:
    """Restarts what was killed, until Ctrl-C."""
    back_at: dict[str, float] = {}
    while True:
        site.raise_if_a_server_ended()
        for shard, server in site.shards.items():
            if server.running:
                continue
            if shard not in back_at:
                back_at[shard] = time.monotonic() + _AWAY_S
                console.print(f"{shard} is gone; it comes back blank in {_AWAY_S:g} s")
                site.write_state()
            elif time.monotonic() >= back_at[shard]:
                server.start()
                del back_at[shard]
                console.print(f"{shard} is back, blank")
                site.write_state()
        time.sleep(0.1)


def _check(console: Console, plan: CheckPlan) -> int:
    with _started_site(console) as site, ProgressLine(console) as progress:
        outcome = asyncio.run(run_check(site, plan, progress.show))
    return report(console, outcome)


if __name__ == "__main__":
    main()
