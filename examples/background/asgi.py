"""What `runworker` runs: the consumer of the normal channel `jobs`."""

import os

from channels.consumer import SyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

from cluster_layer.sync import SyncChannelLayer
from examples.background.config import CONFIG

layer = SyncChannelLayer(**CONFIG)


class Jobs(SyncConsumer):
    """Squares a number and announces it; each message goes to one worker process."""

    def job_run(self, message: dict[str, int]) -> None:
        number = message["number"]
        done = {"type": "job.done", "number": number, "square": number**2, "by": os.getpid()}
        layer.group_send("results", done)


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Jobs.as_asgi()})})
