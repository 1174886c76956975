"""One cell, in a process of its own: starts its servers, measures, prints the figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import sys
import traceback
from typing import NoReturn

from benchmarks.bench import Bench
from benchmarks.peers import PEERS
from benchmarks.rows import row_of
from benchmarks.rows.row import Row

FULL_S, QUICK_S = 2.0, 0.1


def measure(
    loop: asyncio.AbstractEventLoop, row: Row, peer: str, *, quick: bool
) -> dict[str, float]:
    """The figures of one cell. Layers stay open: what they leave behind goes with the process."""
    with PEERS[peer].start(row.shards) as servers:
        bench = Bench(peer, servers, QUICK_S if quick else FULL_S, quick)
        return loop.run_until_complete(row.measure(bench))


def profiled(loop: asyncio.AbstractEventLoop, row: Row, peer: str, path: str) -> dict[str, float]:
    """As `measure`, with a profile of the cell's own thread in a file for `python -m pstats`."""
    profile = cProfile.Profile()
    figures = profile.runcall(measure, loop, row, peer, quick=False)
    profile.dump_stats(path)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", metavar="FILE", help="write a profile; figures are then slow")
    arguments = parser.parse_args()
    row, loop = row_of(arguments.row), asyncio.new_event_loop()
    try:
        if arguments.profile:
            figures = profiled(loop, row, arguments.peer, arguments.profile)
        else:
            figures = measure(loop, row, arguments.peer, quick=arguments.quick)
        print(json.dumps(figures), flush=True)
    except BaseException:  # noqa: BLE001 - the last words of this process
        traceback.print_exc()
        _end(1)
    _end(0)


def _end(code: int) -> NoReturn:
    """End at once: receivers that still wait would each complain about a loop that is gone."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
