"""Django settings of one chat server; what differs between runs comes from the environment.

`CHAT_SITE_DIRECTORY` for the demo on one host; on several hosts, what the command line reads too:
`CLUSTER_LAYER_STORE` and `CLUSTER_LAYER_STORE_OPTIONS`, a JSON file. `CHAT_METRICS=prometheus` for
figures under /metrics.
"""

import json
import os
from pathlib import Path
from typing import Any

SITE_DIRECTORY = (
    Path(os.environ["CHAT_SITE_DIRECTORY"]) if "CHAT_SITE_DIRECTORY" in os.environ else None
)

# Nothing is signed with it on 127.0.0.1, and little elsewhere.
SECRET_KEY = os.environ.get("CHAT_SECRET_KEY", "chat-demo")
DEBUG = False
ALLOWED_HOSTS = os.environ.get("CHAT_ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")
INSTALLED_APPS = ["channels", "cluster_layer.demo"]
ROOT_URLCONF = "cluster_layer.demo.urls"
ASGI_APPLICATION = "cluster_layer.demo.asgi.application"
USE_TZ = True


def _topology() -> str | dict[str, Any]:
    if SITE_DIRECTORY is not None:
        return (SITE_DIRECTORY / "topology.json").as_uri()
    options = os.environ.get("CLUSTER_LAYER_STORE_OPTIONS")
    given = json.loads(Path(options).read_text(encoding="utf-8")) if options else {}
    return {"url": os.environ["CLUSTER_LAYER_STORE"], **given}


CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "cluster_layer.ClusterChannelLayer",
        "CONFIG": {
            "topology": _topology(),
            "prefix": "chat",
            # The check counts every message: a server on a busy machine may fall behind.
            "capacity": 1000,
            "metrics": os.environ.get("CHAT_METRICS"),
        },
    },
}
