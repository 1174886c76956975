"""A pool of forked workers that take jobs from two channels, without any framework.

    python -m examples.background.prefork 100

sends 100 jobs and waits for their results. Urgent jobs and others have a channel each; a worker
that reads both starves neither.
"""

import multiprocessing
import os
import sys

from cluster_layer.sync import SyncChannelLayer
from examples.background.config import CONFIG

WORKERS = 4
CHANNELS = ["urgent", "later"]
PATIENCE_S = 60.0

layer = SyncChannelLayer(**CONFIG)  # made before the fork, used behind it


def work() -> None:
    """Take one job after the other until one says that it is the last."""
    while True:
        channel, job = layer.receive_many(CHANNELS, block=True, timeout=PATIENCE_S)
        if job is None or job["type"] == "stop":
            layer.close()
            return
        layer.send(
            job["reply_to"],
            {"type": "done", "number": job["number"], "from": channel, "by": os.getpid()},
        )


def main(jobs: int) -> int:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    results = layer.new_channel("results")
    done: list[dict[str, int]] = []
    for number in range(jobs):
        layer.send(CHANNELS[number % 2], {"type": "job", "number": number, "reply_to": results})
        if number - len(done) >= 50:  # no more than the channels have room for
            done.append(layer.receive(results, PATIENCE_S))
    while len(done) < jobs:
        done.append(layer.receive(results, PATIENCE_S))
    for _ in workers:
        layer.send("later", {"type": "stop"})
    for worker in workers:
        worker.join()
    numbers = sorted(result["number"] for result in done)
    processes = {result["by"] for result in done}
    print(f"{len(numbers)} jobs done, each once, by {len(processes)} processes")
    layer.close()
    return 0 if numbers == list(range(jobs)) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
