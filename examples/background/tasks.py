"""A Celery task that announces its result: the layer in a prefork worker.

`python -m examples.background.tasks 5` orders five. The broker is a directory, so that the example
needs no other server; any broker will do.
"""

import os
import sys
import tempfile
from pathlib import Path

from celery import Celery

from cluster_layer.sync import SyncChannelLayer
from examples.background.config import CONFIG

BROKER = Path(os.environ.get("BROKER_DIRECTORY", Path(tempfile.gettempdir()) / "background-broker"))
BROKER.mkdir(parents=True, exist_ok=True)

app = Celery("background", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(BROKER),
    "data_folder_out": str(BROKER),
    "control_folder": str(BROKER / "control"),
}

# Made before the worker forks: each child is a process of its own from its first call on.
layer = SyncChannelLayer(**CONFIG)


# A name of its own: it is the same for the worker and for who runs this file.
@app.task(name="square")
def square(number: int) -> None:
    """Square a number and tell everybody who listens."""
    done = {"type": "job.done", "number": number, "square": number**2, "by": os.getpid()}
    layer.group_send("results", done)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        square.delay(number)
