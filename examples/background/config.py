"""Where the shards are: the same for every program of the site."""

import os

CONFIG = {
    "hosts": os.environ.get(
        "SHARDS", "redis://127.0.0.1:6381,redis://127.0.0.1:6382,redis://127.0.0.1:6383"
    ).split(","),
    "prefix": "background",
}
