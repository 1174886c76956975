"""Django settings of one chat server; what differs between runs comes from the environment."""

import os
from pathlib import Path

SITE_DIRECTORY = Path(os.environ["CHAT_SITE_DIRECTORY"])

# A demo on 127.0.0.1: nothing is signed with it.
SECRET_KEY = "chat-demo"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["channels", "examples.chat"]
ROOT_URLCONF = "examples.chat.urls"
ASGI_APPLICATION = "examples.chat.asgi.application"
USE_TZ = True

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "cluster_layer.ClusterChannelLayer",
        "CONFIG": {
            "topology": (SITE_DIRECTORY / "topology.json").as_uri(),
            "prefix": "chat",
        },
    },
}
